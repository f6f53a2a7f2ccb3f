from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelmq.errors import ModelLoadError
from modelmq.metadata import Signature, TensorSpec
from modelmq.runtimes import ModelSettings, ModelSource, Runtime, open_model

Shape = list[int | str | None] | None
Open = Callable[..., Runtime]
X = "FLOAT"


def value(name: str, kind: str, shape: Shape) -> Any:
    from onnx import TensorProto, helper  # noqa: PLC0415 - heavy, only to write the graphs

    return helper.make_tensor_value_info(name, TensorProto.DataType.Value(kind), shape)


def node(operator: str, takes: list[str], **attributes: object) -> Any:
    from onnx import helper  # noqa: PLC0415 - likewise

    return helper.make_node(operator, takes, ["y"], **attributes)


@pytest.fixture
def opened(tmp_path: Path) -> Open:
    from onnx import helper  # noqa: PLC0415 - likewise

    def save_and_open(
        nodes: list[Any], takes: list[Any], gives: list[Any], initial: list[Any] | None = None, **settings: object
    ) -> Runtime:
        graph = helper.make_graph(nodes, "g", takes, gives, initial)
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
        path = tmp_path / "model.onnx"
        path.write_bytes(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())
        return open_model(ModelSource("m", "1", path, ModelSettings(runtime="onnx", **settings)))

    return save_and_open


def identity(opened: Open, shape: Shape, kind: str = X, **settings: object) -> Runtime:
    return opened([node("Identity", ["x"])], [value("x", kind, shape)], [value("y", kind, shape)], **settings)


@pytest.mark.parametrize(
    ("shape", "found", "batched"),
    [
        (["rows", 4], (-1, 4), True),
        ([None, None], (-1, -1), True),
        ([-1], (-1,), True),
        ([1, 4], (1, 4), False),
        ([3, "length"], (3, -1), False),
        ([], (), False),
    ],
)
def test_shapes_and_the_batch_axis_come_from_the_file(
    opened: Open, shape: Shape, found: tuple[int, ...], batched: bool
) -> None:
    runtime = identity(opened, shape)
    assert runtime.signature == Signature(
        "onnxruntime_onnx", (TensorSpec("x", "FP32", found),), (TensorSpec("y", "FP32", found),), batched
    )


@pytest.mark.parametrize(
    ("kind", "datatype"),
    [
        ("BOOL", "BOOL"),
        ("UINT8", "UINT8"),
        ("UINT16", "UINT16"),
        ("UINT32", "UINT32"),
        ("UINT64", "UINT64"),
        ("INT8", "INT8"),
        ("INT16", "INT16"),
        ("INT32", "INT32"),
        ("INT64", "INT64"),
        ("FLOAT16", "FP16"),
        ("FLOAT", "FP32"),
        ("DOUBLE", "FP64"),
        ("STRING", "BYTES"),
    ],
)
def test_every_datatype_of_the_protocol_is_served(opened: Open, kind: str, datatype: str) -> None:
    assert identity(opened, ["n"], kind).signature.inputs[0].datatype == datatype


def test_text_is_text_in_the_graph(opened: Open) -> None:
    runtime = identity(opened, ["n"], "STRING")
    assert runtime.predict({"x": np.array([b"a", "ä".encode()], object)})["y"].tolist() == ["a", "ä"]


def test_a_type_the_protocol_does_not_have_is_refused(opened: Open) -> None:
    with pytest.raises(ModelLoadError, match=r'has input "x" of tensor\(bfloat16\), not a tensor served'):
        identity(opened, ["n"], "BFLOAT16")


def test_a_list_of_dicts_is_refused_with_advice(opened: Open) -> None:
    from onnx import TensorProto, helper  # noqa: PLC0415 - likewise

    nodes = [node("ZipMap", ["x"], domain="ai.onnx.ml", classlabels_int64s=[0, 1])]
    kind = helper.make_sequence_type_proto(
        helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    )
    with pytest.raises(ModelLoadError, match=r"export the model with plain tensors .*'zipmap': False"):
        opened(nodes, [value("x", X, ["n", 2])], [helper.make_value_info("y", kind)])


def reshaped(opened: Open, shape: Shape, **settings: object) -> Runtime:
    """A graph whose output has a rank that only the run decides, by the number of zeros in `s`."""
    takes = [value("x", X, shape), value("s", "INT64", ["k"])]
    return opened([node("Reshape", ["x", "s"])], takes, [value("y", X, None)], **settings)


def test_an_unknown_rank_is_found_by_a_run(opened: Open) -> None:
    assert reshaped(opened, ["n", 2]).signature.outputs == (TensorSpec("y", "FP32", (-1, -1)),)
    assert reshaped(opened, [1, 1]).signature.outputs == (TensorSpec("y", "FP32", (-1,)),)


def test_an_unknown_rank_that_no_run_can_tell_is_undeclared(opened: Open) -> None:
    runtime = reshaped(opened, [1, 2])
    assert runtime.signature.outputs == ()
    assert not runtime.signature.batched


def test_an_unknown_rank_can_be_declared(opened: Open) -> None:
    spec = TensorSpec("y", "FP32", (1, 2))
    assert reshaped(opened, [1, 2], outputs=(spec,)).signature.outputs == (spec,)


def test_a_variable_first_size_that_does_not_count_rows_is_no_batch_axis(opened: Open) -> None:
    from onnx import TensorProto, helper  # noqa: PLC0415 - likewise

    target = helper.make_tensor("target", TensorProto.INT64, [2], [-1, 1])
    nodes = [node("Reshape", ["x", "target"])]
    runtime = opened(nodes, [value("x", X, ["n", 2])], [value("y", X, ["m", 1])], [target])
    assert runtime.signature.outputs == (TensorSpec("y", "FP32", (-1, 1)),)
    assert not runtime.signature.batched


def test_an_output_without_rows_means_no_batches(opened: Open) -> None:
    nodes = [node("ReduceSum", ["x"], keepdims=0)]
    runtime = opened(nodes, [value("x", X, ["n", 2])], [value("y", X, [])])
    assert not runtime.signature.batched
    assert runtime.signature.outputs == (TensorSpec("y", "FP32", ()),)
    assert runtime.predict({"x": np.ones((2, 2), np.float32)})["y"] == 4


def test_settings_may_correct_a_shape_and_decline_batches(opened: Open) -> None:
    assert identity(opened, ["n", "m"], inputs=(TensorSpec("x", "FP32", (-1, 7)),)).signature.inputs[0].shape == (-1, 7)
    assert not identity(opened, ["n", 2], batched=False).signature.batched


def test_settings_cannot_name_what_the_file_does_not_have(opened: Open) -> None:
    with pytest.raises(ModelLoadError, match=r'has no output "z" that model\.toml declares; it has y'):
        identity(opened, ["n"], outputs=(TensorSpec("z", "FP32", (-1,)),))
