from __future__ import annotations

import pytest

from modelmq import control
from modelmq.errors import InvalidRequest
from modelmq.metadata import ModelMetadata, Signature, TensorSpec

REPORT = control.WorkerReport(
    worker="w1",
    role="default",
    models=(
        control.ModelReport(
            "digits",
            "1",
            "ready",
            metadata=ModelMetadata(
                "digits", "1", Signature("onnx", (TensorSpec("x", "FP32", (-1, 64)),), (), batched=True)
            ),
        ),
        control.ModelReport("broken", "1", "failed", reason="models/broken/1/model.onnx cannot be read."),
    ),
)


def test_a_report_survives_the_wire() -> None:
    assert control.decode_report(control.encode(REPORT)) == REPORT


def test_a_hello_survives_the_wire() -> None:
    assert control.decode_hello(control.encode(control.Hello("g1"))) == control.Hello("g1")


def test_a_report_of_an_older_worker_is_read() -> None:
    """One that does not say yet whether its models may run twice, nor how long they may take."""
    signature = b'{"platform":"onnx","inputs":[],"outputs":[],"batched":true}'
    model = (
        b'{"name":"m","version":"1","state":"ready","metadata":{"name":"m","version":"1","signature":%s}}' % signature
    )
    (read,) = control.decode_report(b'{"worker":"w","role":"r","models":[%s]}' % model).models
    assert read.metadata is not None
    assert (read.metadata.idempotent, read.metadata.timeout_s) == (True, None)


def test_fields_of_a_newer_version_are_ignored() -> None:
    assert control.decode_hello(b'{"gateway":"g1","colour":"red"}') == control.Hello("g1")


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[]", b'{"gateway":1}', b"\xff", b'{"worker":"w","role":"r","models":[{"state":"odd"}]}']
)
def test_garbage_is_one_typed_error(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        control.decode_hello(body)
    with pytest.raises(InvalidRequest):
        control.decode_report(body)
