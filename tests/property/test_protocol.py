"""What holds for every tensor and for every body that anybody may send."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from modelmq import control, protocol
from modelmq.errors import InvalidRequest, ModelFailed, Unsupported
from modelmq.metadata import Signature, TensorSpec
from modelmq.protocol import datatypes, json_codec, json_reading, validation
from modelmq.protocol.datatypes import DTYPES

PASS_THROUGH = Signature("python", (), (), batched=False)
BATCHED = Signature("python", (), (), batched=True)
DECLARED = Signature(
    "python",
    (TensorSpec("x", "FP32", (-1, 2)), TensorSpec("t", "BYTES", (-1,))),
    (TensorSpec("y", "INT64", (-1,)),),
    batched=True,
)
SIGNATURES = (PASS_THROUGH, BATCHED, DECLARED)
IN_JSON = [name for name in DTYPES if name != "FP16"]
FINITE = {"allow_nan": False, "allow_infinity": False}

shapes = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)


def arrays(datatype: str) -> st.SearchStrategy[np.ndarray[Any, Any]]:
    dtype = DTYPES[datatype]
    if datatype == "BYTES":
        return hnp.arrays(dtype, shapes, elements=st.text().map(str.encode))
    elements = hnp.from_dtype(dtype, **FINITE) if dtype.kind == "f" else hnp.from_dtype(dtype)
    return hnp.arrays(dtype, shapes, elements=elements)


any_array = st.sampled_from(IN_JSON).flatmap(arrays)


def same(left: np.ndarray[Any, Any], right: np.ndarray[Any, Any]) -> bool:
    if left.dtype != right.dtype or left.shape != right.shape:
        return False
    return left.tolist() == right.tolist() if left.dtype == object else left.tobytes() == right.tobytes()


@given(st.dictionaries(st.text(max_size=8), any_array, max_size=3))
def test_requests_survive_the_wire(inputs: dict[str, np.ndarray[Any, Any]]) -> None:
    request = json_codec.decode_request(json_codec.encode_request(inputs, request_id="r"), PASS_THROUGH)
    assert request.id == "r"
    assert list(request.inputs) == list(inputs)
    assert all(same(request.inputs[name], array) for name, array in inputs.items())


@given(st.dictionaries(st.text(max_size=8), any_array, max_size=3))
def test_responses_survive_the_wire(outputs: dict[str, np.ndarray[Any, Any]]) -> None:
    response = json_codec.decode_response(json_codec.encode_response("m", "1", None, outputs))
    assert list(response.outputs) == list(outputs)
    assert all(same(response.outputs[name], array) for name, array in outputs.items())


@given(any_array)
def test_nested_data_means_the_same_as_flat(array: np.ndarray[Any, Any]) -> None:
    plain = array.tolist()
    tensor = {
        "name": "x",
        "shape": array.shape,
        "datatype": datatypes.datatype_of(array.dtype),
        "data": [plain] if array.ndim == 0 else plain,
    }
    body = json.dumps({"inputs": [tensor]}, default=bytes.decode).encode()
    assert same(json_codec.decode_request(body, PASS_THROUGH).inputs["x"], array)


@given(any_array, st.integers(1, 40))
@settings(max_examples=60)
def test_the_size_of_pieces_makes_no_difference(array: np.ndarray[Any, Any], piece: int) -> None:
    body = json_codec.encode_request({"x": array})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_reading, "PIECE_BYTES", piece)
        assert same(json_codec.decode_request(body, PASS_THROUGH).inputs["x"], array)


HOSTILE_SIZES = [10**9, 2**31 - 1, 2**31, 2**32, 2**62, 2**63 - 1, -(2**63), 10**30]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=5),
    max_leaves=20,
)
tensor_like = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["x", "t", "z"]) | json_values,
        "shape": st.lists(st.integers(-2, 4) | st.sampled_from(HOSTILE_SIZES) | st.integers(), max_size=4)
        | json_values,
        "datatype": st.sampled_from([*DTYPES, "BF16"]) | json_values,
    },
    optional={
        "data": st.lists(st.integers(-2, 300) | json_values, max_size=8) | json_values,
        "parameters": json_values,
    },
)
request_like = st.fixed_dictionaries(
    {"inputs": st.lists(tensor_like, max_size=3) | json_values},
    optional={"id": st.text() | json_values, "parameters": json_values, "outputs": json_values},
)


def refusal(read: Callable[[], object]) -> str:
    try:
        read()
    except (InvalidRequest, Unsupported, ModelFailed) as error:
        return error.message
    return ""


def read_everywhere(body: bytes) -> None:
    for signature in SIGNATURES:
        said = refusal(lambda s=signature: rows(body, s))  # type: ignore[misc]
        assert not said or (said.endswith(".") and len(said) < 500)
    for read in (protocol.decode_envelope, json_codec.decode_response, control.decode_hello, control.decode_report):
        said = refusal(lambda r=read: r(body))  # type: ignore[misc]
        assert not said or (said.endswith(".") and len(said) < 500)
    assert protocol.error_message(body)


def rows(body: bytes, signature: Signature) -> None:
    request = json_codec.decode_request(body, signature, model="m")
    assert validation.rows_of(request, signature) >= 1


@given(request_like | json_values)
@settings(max_examples=300)
@example({"inputs": [{"name": "x", "shape": [2**62, 4], "datatype": "FP32", "data": []}]})
@example({"inputs": [{"name": "x", "shape": [0, *[2**31 - 1] * 3], "datatype": "FP32", "data": []}]})
@example({"inputs": [{"name": "t", "shape": [0, *[2**31 - 1] * 31], "datatype": "BYTES", "data": []}]})
@example({"inputs": [{"name": "x", "shape": [10**9], "datatype": "FP32", "data": []}]})
def test_any_json_is_a_request_or_one_typed_error(value: Any) -> None:
    read_everywhere(json.dumps(value).encode("utf-8", "surrogatepass"))


@given(st.binary(max_size=200))
@example(b'{"inputs":[{"name":"x","shape":[1],"datatype":"BYTES","data":["\xff"]}]}')
@example(b'{"inputs":[{"name":"x","shape":[1],"datatype":"BYTES","data":["\\ud800"]}]}')
@example(b'{"error":"\xff"}')
@example(b'{"gateway":"\xff"}')
@example(b'{"z":' * 100_000)
def test_any_bytes_are_a_request_or_one_typed_error(body: bytes) -> None:
    read_everywhere(body)


@given(st.data())
def test_a_damaged_request_is_a_request_or_one_typed_error(data: st.DataObject) -> None:
    body = bytearray(
        b'{"id":"r","inputs":[{"name":"x","shape":[2,2],"datatype":"FP32","data":[[1.5,-2e3],[0,4]]},'
        b'{"name":"t","shape":[2],"datatype":"BYTES","data":["a","\\u00e4"]}],"outputs":[{"name":"y"}]}'
    )
    json_codec.decode_request(bytes(body), DECLARED)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(body) - 1))
        body[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    read_everywhere(bytes(body))
