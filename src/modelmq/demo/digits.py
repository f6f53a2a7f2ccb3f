"""Handwritten digits, 8x8 pixels, told apart by a small neural network and exported to ONNX."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler

from modelmq.demo.samples import SAMPLE_FILE, TRUTH
from modelmq.protocol.json_codec import encode_request

OPSETS = {"": 17, "ai.onnx.ml": 3}
"""Old enough for every onnxruntime that ModelMQ accepts."""


def build(folder: Path) -> None:
    """Trains on three quarters of the data; the question is a digit from the last quarter.

    Input `x` FP32 [-1, 64] of values 0 to 16; outputs `label` INT64 [-1] and `probabilities` FP32 [-1, 10].
    """
    pixels, labels = load_digits(return_X_y=True)
    pixels = pixels.astype(np.float32)
    training, unseen, training_labels, unseen_labels = train_test_split(
        pixels, labels, test_size=0.25, random_state=0, stratify=labels
    )
    network = MLPClassifier((64,), learning_rate_init=0.01, max_iter=300, tol=1e-3, random_state=0)
    classifier = make_pipeline(MinMaxScaler(), network).fit(training, training_labels)
    exported = to_onnx(
        classifier,
        initial_types=[("x", FloatTensorType([None, pixels.shape[1]]))],
        options={id(classifier): {"zipmap": False}},
        target_opset=OPSETS,
    )
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "model.onnx").write_bytes(exported.SerializeToString())
    question = encode_request({"x": unseen[1:2]}, parameters={TRUTH: int(unseen_labels[1])})
    (folder / SAMPLE_FILE).write_bytes(question)
