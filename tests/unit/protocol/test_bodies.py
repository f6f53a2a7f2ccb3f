from __future__ import annotations

import json

import pytest

from modelmq import protocol
from modelmq.metadata import ModelMetadata, Signature, TensorSpec


@pytest.mark.parametrize("message", ['Input "x" is missing.', "ä\n", "", "lone \ud800"])
def test_an_error_has_one_key(message: str) -> None:
    body = protocol.encode_error(message)
    assert list(json.loads(body)) == ["error"]
    assert protocol.error_message(body) == message.replace("\ud800", "?")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "The error reply has no text."),
        (b"Internal Server Error", "Internal Server Error"),
        (b'{"detail":"x"}', '{"detail":"x"}'),
        (b'{"error":7}', '{"error":7}'),
        (b"\xff", "\ufffd"),
        (b'{"error":"\xff"}', '{"error":"\ufffd"}'),
        (b"x" * 10_000, "x" * 200),
        (b"[" * 100_000, "[" * 200),
    ],
)
def test_of_any_other_body_the_beginning_is_the_message(body: bytes, message: str) -> None:
    assert protocol.error_message(body) == message


def test_server_metadata() -> None:
    assert json.loads(protocol.server_metadata_json("modelmq", "0.1.0", ("x",))) == {
        "name": "modelmq",
        "version": "0.1.0",
        "extensions": ["x"],
    }


def test_model_metadata() -> None:
    signature = Signature(
        "onnx", (TensorSpec("x", "FP32", (-1, 64)),), (TensorSpec("y", "INT64", (-1,)),), batched=True
    )
    assert json.loads(protocol.model_metadata_json(ModelMetadata("digits", "2", signature), ["1", "2"])) == {
        "name": "digits",
        "versions": ["1", "2"],
        "platform": "onnx",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 64]}],
        "outputs": [{"name": "y", "datatype": "INT64", "shape": [-1]}],
    }
