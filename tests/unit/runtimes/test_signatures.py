from __future__ import annotations

from pathlib import Path

import pytest

from modelmq.errors import ModelLoadError
from modelmq.metadata import Signature, TensorSpec
from modelmq.runtimes import ModelSettings, ModelSource, warm_up_inputs
from modelmq.runtimes.signatures import batch_axis, overridden

X = TensorSpec("x", "FP32", (-1, 4))
TEXT = TensorSpec("text", "BYTES", (-1, -1))
SOURCE = ModelSource("m", "1", Path("m/1/model.onnx"), ModelSettings(runtime="onnx"))


@pytest.mark.parametrize(
    ("shapes", "batched"),
    [([(-1, 4), (-1,)], True), ([(-1, 4), (1, 4)], False), ([(-1,), ()], False), ([], True), ([(4, -1)], False)],
)
def test_rows_can_be_joined_where_axis_0_of_everything_is_variable(
    shapes: list[tuple[int, ...]], batched: bool
) -> None:
    assert batch_axis([TensorSpec(str(i), "FP32", shape) for i, shape in enumerate(shapes)]) is batched


def test_a_declaration_replaces_the_shape_in_the_file() -> None:
    wider = TensorSpec("x", "FP32", (-1, -1))
    assert overridden((X, TEXT), (wider,), SOURCE, "input") == (wider, TEXT)


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        (TensorSpec("z", "FP32", (-1,)), 'm/1/model.onnx has no input "z" that model.toml declares; it has x, text.'),
        (TensorSpec("x", "FP64", (-1,)), 'm/1/model.onnx has input "x" of FP32; model.toml declares FP64.'),
    ],
)
def test_a_declaration_cannot_contradict_the_file(spec: TensorSpec, sentence: str) -> None:
    with pytest.raises(ModelLoadError) as caught:
        overridden((X, TEXT), (spec,), SOURCE, "input")
    assert caught.value.message == sentence


def test_warm_up_inputs_fit_the_signature() -> None:
    optional = TensorSpec("o", "FP32", (-1,), optional=True)
    zeros = warm_up_inputs(Signature("p", (X, TEXT, optional), (), batched=True), 3)
    assert zeros is not None
    assert {name: (array.dtype.kind, array.shape) for name, array in zeros.items()} == {
        "x": ("f", (3, 4)),
        "text": ("O", (3, 1)),
    }
    assert zeros["text"][0, 0] == b""
    alone = warm_up_inputs(Signature("p", (X,), (), batched=False), 3)
    assert alone is not None
    assert alone["x"].shape == (1, 4)
    assert warm_up_inputs(Signature("p", (), (), batched=True)) is None
