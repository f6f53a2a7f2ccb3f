"""One real question per model: a file `sample.json` beside the version folders, ready to be sent as it is.

It is an ordinary request body; where the true answer is known it stands in the request's parameter `truth`, which no
model reads. A user's own model may have such a file too.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from modelmq.errors import InvalidRequest
from modelmq.protocol import decode_envelope
from modelmq.protocol.envelope import Scalar

SAMPLE_FILE = "sample.json"
TRUTH = "truth"


class Sample(msgspec.Struct, frozen=True):
    """A question to a model. `truth` is the answer the data set gives, None when the file does not say."""

    model: str
    path: Path
    body: bytes
    truth: Scalar | None


def sample(models_dir: Path, model: str) -> Sample | None:
    """The model's question; None where there is no file or what it holds is not a request."""
    path = models_dir / model / SAMPLE_FILE
    try:
        body = path.read_bytes().strip()
        envelope = decode_envelope(body)
    except (OSError, InvalidRequest):
        return None
    return Sample(model, path, body, envelope.parameters.get(TRUTH))
