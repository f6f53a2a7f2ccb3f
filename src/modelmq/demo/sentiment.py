"""The demo's plain Python model: counts words of a list, in twelve lines that need no ModelMQ import."""

from __future__ import annotations

from pathlib import Path

from modelmq.demo.samples import SAMPLE_FILE, TRUTH
from modelmq.protocol.json_codec import encode_request

SOURCE = """\
import numpy as np

GOOD, BAD = {b"good", b"great", b"love", b"happy"}, {b"bad", b"awful", b"hate", b"sad"}


class Sentiment:
    inputs = {"text": ("BYTES", [-1])}
    outputs = {"score": ("INT64", [-1])}

    def predict(self, batch):
        words = [set(text.lower().split()) for text in batch["text"]]
        return {"score": np.array([len(w & GOOD) - len(w & BAD) for w in words])}
"""
"""The model file, the same text as examples/models/sentiment/1/model.py."""


def build(folder: Path) -> None:
    """Writes the model and its question into the model's folder."""
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "model.py").write_text(SOURCE, "utf-8")
    (folder / SAMPLE_FILE).write_bytes(encode_request({"text": ["what a great day"]}, parameters={TRUTH: 1}))
