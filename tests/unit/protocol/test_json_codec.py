from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from modelmq import protocol
from modelmq.errors import InvalidRequest, ModelFailed, Unsupported
from modelmq.metadata import Signature, TensorSpec
from modelmq.protocol import json_codec, tensors, validation

DIGITS = Signature(
    "onnx",
    (TensorSpec("x", "FP32", (-1, 4)),),
    (TensorSpec("label", "INT64", (-1,)), TensorSpec("probabilities", "FP32", (-1, 10))),
    batched=True,
)
TWO = Signature("python", (TensorSpec("a", "INT8", (-1,)), TensorSpec("b", "BYTES", (-1, 2))), (), batched=True)
SINGLE = Signature("python", (TensorSpec("a", "FP64", (2, -1)),), (), batched=False)
ANYTHING = Signature("python", (), (), batched=True)
ANYTHING_ALONE = Signature("python", (), (), batched=False)


def tensor(**changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4.5]}
    return {key: value for key, value in (values | changes).items() if value is not None}


def body(*inputs: dict[str, Any], **keys: Any) -> bytes:
    return json.dumps({"inputs": list(inputs) or [tensor()], **keys}).encode()


def decode(data: bytes, signature: Signature = DIGITS) -> tensors.InferenceRequest:
    return json_codec.decode_request(data, signature, model="digits")


def refusal(data: bytes, signature: Signature = DIGITS) -> str:
    with pytest.raises(InvalidRequest) as caught:
        decode(data, signature)
    return caught.value.message


def test_a_request_is_read() -> None:
    request = decode(body(id="r1", parameters={"priority": 3, "fast": True}, outputs=[{"name": "label"}]))
    assert request.id == "r1"
    assert request.parameters == {"priority": 3, "fast": True}
    assert request.outputs == ("label",)
    assert request.inputs["x"].dtype == np.float32
    np.testing.assert_array_equal(request.inputs["x"], [[1, 2, 3, 4.5]])


def test_what_the_protocol_does_not_know_is_ignored_and_null_is_absent() -> None:
    request = decode(body(tensor(parameters={"note": "x"}, colour="red"), id="a", colour={"deep": [1]}))
    assert request.parameters == {}
    request = decode(body().replace(b'{"inputs"', b'{"id":null,"parameters":null,"outputs":null,"inputs"'))
    assert (request.id, request.parameters, request.outputs) == (None, {}, ())


def test_outputs_asked_for_twice_are_given_once() -> None:
    assert decode(body(outputs=[{"name": "label"}, {"name": "label"}])).outputs == ("label",)


def test_binary_outputs_asked_for_in_json_are_answered_in_json() -> None:
    asked = [{"name": "label", "parameters": {"binary_data": True}}]
    assert decode(body(outputs=asked, parameters={"binary_data_output": True})).outputs == ("label",)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (
            body(tensor(shape=[1, 63])),
            'Input "x" of model digits has shape [1, 63]; expected [-1, 4].',
        ),
        (body(tensor(shape=[4])), 'Input "x" of model digits has shape [4]; expected [-1, 4].'),
        (body(tensor(shape=[-1, 4])), 'Input "x" of model digits has shape [-1, 4]; expected sizes from 0 to'),
        (body(tensor(shape=[2**63, 4])), "expected sizes from 0 to 2147483647."),
        (body(tensor(shape=[2**62, 4])), "expected sizes from 0 to 2147483647."),
        (body(tensor(shape=[10**300, 4])), "has shape [beyond 20 digits, 4]"),
        (body(tensor(shape=[2**31 - 1, 4])), "has 4 values in its data; expected 8589934588 for shape"),
        (body(tensor(shape=[0, 4], data=[])), 'Input "x" of model digits has shape [0, 4]; expected at least one row.'),
        (body(tensor(datatype="FP64")), 'Input "x" of model digits has datatype FP64; expected FP32.'),
        (body(tensor(datatype="FLOAT")), 'Input "x" of model digits has datatype FLOAT; expected FP32.'),
        (body(tensor(name="y")), 'Input "y" of model digits is unknown; the model\'s inputs are x.'),
        (body(tensor(), tensor()), 'Input "x" of model digits is given twice; expected it once.'),
        (b'{"inputs":[]}', 'Input "x" of model digits is missing; expected FP32 [-1, 4].'),
        (body(tensor(data=None)), 'Input "x" of model digits has no data; expected its values under "data".'),
        (body(tensor(data=None, parameters={"binary_data_size": 16})), "is announced as binary data"),
        (body(tensor(data=[1, 2, 3])), "has 3 values in its data; expected 4 for shape [1, 4]."),
        (body(tensor(data=[1, 2, 3, "4"])), "has a string at position 3; expected numbers in the range of FP32."),
        (body(tensor(data=[1, None, 3, 4])), "has null at position 1; expected numbers in the range of FP32."),
        (body(tensor(data=[1, True, 3, 4])), "has true or false at position 1; expected numbers"),
        (body(tensor(data=[1, {}, 3, 4])), "has an object at position 1; expected numbers"),
        (body(tensor(data=[1, 2, 3, 1e39])), "has a value out of range at position 3; expected numbers"),
        (
            body(tensor(data=[[1, 2], [3, 4]])),
            "has lists nested unlike its shape [1, 4]; expected that or one flat list.",
        ),
        (
            body(tensor(data="abcd")),
            "has data that is not a list; expected a flat list, or lists nested like its shape.",
        ),
        (body(tensor(data={"a": 1})), "has data that is not a list"),
        (body(outputs=[{"name": "z"}]), 'Output "z" of model digits is unknown; the model\'s outputs are label, prob'),
    ],
)
def test_a_request_that_does_not_fit_is_refused_with_a_sentence(data: bytes, sentence: str) -> None:
    assert sentence in refusal(data)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "The body is not valid JSON"),
        (b"\xff\x00", "The body is not valid JSON"),
        (b"[]", "The body is not of the protocol's form: expected object, got array."),
        (b"{}", "missing required field inputs"),
        (b'{"inputs":7}', "at inputs: expected array, got int."),
        (b'{"inputs":[{"name":7}]}', "at inputs[0].name: expected str, got int."),
        (
            b'{"inputs":[{"name":"x","shape":[1.0],"datatype":"FP32"}]}',
            "at inputs[0].shape[0]: expected int, got float.",
        ),
        (body(id=7), "at id: expected str or null, got int."),
        (body(parameters={"a": [1]}), "at parameters[...]: expected bool or int or float or str, got array."),
        (body() + b"x", "trailing characters"),
        (body()[:-1], "The body is not valid JSON"),
        (body(tensor(data=[float("nan")])), "it has no NaN and no Infinity"),
        (body(tensor(data=[float("inf")])), "it has no NaN and no Infinity"),
        (body(tensor(data=[-float("inf")])), "it has no NaN and no Infinity"),
        (b'{"inputs":[{"name":"\xff","shape":[],"datatype":"FP32"}]}', "a string in it is not UTF-8"),
        (b'{"inputs":' + b"[" * 100_000, "The body is"),
        (b'{"other":' + b'{"a":' * 100_000, "The body is nested too deeply."),
    ],
)
def test_a_body_that_is_no_request_is_refused_with_a_sentence(data: bytes, sentence: str) -> None:
    assert sentence in refusal(data)


def test_names_from_outside_are_bounded_in_sentences() -> None:
    assert len(refusal(body(tensor(name="y\n" * 5000)))) < 200
    assert "\n" not in refusal(body(tensor(name="y\n")))
    assert len(refusal(body(tensor(shape=[1] * 1000)))) < 200


def test_names_of_the_model_are_listed_up_to_a_bound() -> None:
    many = tuple(TensorSpec(f"input-{n}", "FP32", (-1,)) for n in range(500))
    assert refusal(body(), Signature("python", many, (), batched=True)).endswith("input-18, input-19, ….")
    outputs = Signature("python", (), many, batched=True)
    assert refusal(body(outputs=[{"name": "z"}]), outputs).endswith("input-18, input-19, ….")


def test_inputs_must_have_the_same_number_of_rows() -> None:
    a = tensor(name="a", datatype="INT8", shape=[2], data=[1, 2])
    b = tensor(name="b", datatype="BYTES", shape=[1, 2], data=["p", "q"])
    assert refusal(body(a, b), TWO) == (
        'Input "b" of model digits has 1 rows and "a" has 2; expected the same number of rows in every input.'
    )


def test_a_model_that_is_not_batched_has_one_row_whatever_its_shape() -> None:
    request = decode(body(tensor(name="a", datatype="FP64", shape=[2, 0], data=[])), SINGLE)
    assert request.inputs["a"].shape == (2, 0)
    assert validation.rows_of(request, SINGLE) == 1
    assert refusal(body(tensor(name="a", datatype="FP64", shape=[3, 0], data=[])), SINGLE).endswith("[2, -1].")


def test_rows_are_counted_on_axis_0() -> None:
    request = decode(body(tensor(shape=[3, 4], data=list(range(12)))))
    assert validation.rows_of(request, DIGITS) == 3


def test_an_optional_input_may_be_absent() -> None:
    signature = Signature(
        "python",
        (TensorSpec("x", "FP32", (-1, 4)), TensorSpec("mask", "BOOL", (-1,), optional=True)),
        (),
        batched=True,
    )
    assert list(decode(body(), signature).inputs) == ["x"]


def test_inferred_inputs_pass_any_tensor_through() -> None:
    request = decode(body(tensor(name="q", datatype="UINT8", shape=[2, 2], data=[1, 2, 3, 4])), ANYTHING)
    assert request.inputs["q"].tolist() == [[1, 2], [3, 4]]
    assert validation.rows_of(request, ANYTHING) == 2
    assert "has no inputs; send at least one" in refusal(b'{"inputs":[]}', ANYTHING)
    assert "expected at least one row" in refusal(body(tensor(name="q", shape=[], data=[1])), ANYTHING)
    assert decode(b'{"inputs":[]}', ANYTHING_ALONE).inputs == {}
    assert 'has datatype "FLOAT"; expected one of BOOL' in refusal(body(tensor(datatype="FLOAT")), ANYTHING)
    assert "has 33 dimensions; expected at most 32" in refusal(body(tensor(shape=[1] * 33, data=[1])), ANYTHING)


def test_fp16_is_refused_in_json() -> None:
    half = Signature("onnx", (TensorSpec("x", "FP16", (-1, 4)),), (), batched=True)
    with pytest.raises(Unsupported, match="FP16, which JSON does not carry; it needs the binary tensor extension"):
        decode(body(tensor(datatype="FP16")), half)


@pytest.mark.parametrize(
    "content_type", ["application/octet-stream", "text/plain", "application/json; charset=latin-1"]
)
def test_other_content_types_are_unsupported(content_type: str) -> None:
    with pytest.raises(Unsupported, match="send JSON"):
        json_codec.decode_request(body(), DIGITS, content_type=content_type)


def test_binary_tensors_behind_a_json_content_type_are_unsupported() -> None:
    with pytest.raises(Unsupported, match="binary tensors"):
        json_codec.decode_request(body(), DIGITS, headers={"Inference-Header-Content-Length": 20})


def test_the_envelope_leaves_tensors_unread() -> None:
    envelope = protocol.decode_envelope(body(tensor(datatype="NONSENSE", data={"a": 1}), id="r", parameters={"p": 1.5}))
    assert envelope == protocol.Envelope("r", {"p": 1.5})
    assert protocol.decode_envelope(b'{"inputs": [ ]}') == protocol.Envelope(None, {})


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b"\xff",
        b'{"inputs":7}',
        b'{"inputs":{}}',
        b'{"inputs":"["}',
        b'{"inputs":[NaN]}',
        b'{"inputs":[]}x',
        b'{"inputs":[],"id":1}',
        b'{"inputs":[],"parameters":{"a":null}}',
        b'{"inputs":' + b"[" * 100_000,
    ],
)
def test_an_envelope_that_cannot_be_read_is_one_typed_error(data: bytes) -> None:
    with pytest.raises(InvalidRequest):
        protocol.decode_envelope(data)


def test_a_response_has_the_protocols_form() -> None:
    outputs = {"label": np.array([7]), "p": np.array([[0.1, 0.25]], np.float32), "s": np.array([b"a", "b"], object)}
    assert json.loads(json_codec.encode_response("digits", "1", "r1", outputs)) == {
        "model_name": "digits",
        "model_version": "1",
        "id": "r1",
        "outputs": [
            {"name": "label", "datatype": "INT64", "shape": [1], "data": [7]},
            {"name": "p", "datatype": "FP32", "shape": [1, 2], "data": [0.1, 0.25]},
            {"name": "s", "datatype": "BYTES", "shape": [2], "data": ["a", "b"]},
        ],
    }
    assert b'"id"' not in json_codec.encode_response("digits", "1", None, {})


@pytest.mark.parametrize(
    ("array", "sentence"),
    [
        (np.array([1, np.nan]), 'Output "y" of model m has NaN or Infinity, which JSON does not carry.'),
        (np.array([np.inf], np.float32), "has NaN or Infinity"),
        (np.array([1 + 2j]), "cannot be sent: The protocol has no datatype for numpy's complex128"),
        (np.array(["2026-01-01"], "datetime64[D]"), "cannot be sent"),
        (np.array([1], np.float16), "is FP16, which JSON does not carry"),
        (np.array([b"\xff"], object), "has bytes that are not UTF-8"),
        (np.array(["\ud800"], object), "has bytes that are not UTF-8"),
        (np.array([None], object), "has an element of type NoneType where BYTES needs strings or bytes."),
    ],
)
def test_outputs_that_json_cannot_carry_are_the_models_failure(array: np.ndarray[Any, Any], sentence: str) -> None:
    with pytest.raises(ModelFailed) as caught:
        json_codec.encode_response("m", "1", None, {"y": array})
    assert sentence in caught.value.message


def test_a_response_is_read_back() -> None:
    outputs = {"a": np.array([[1, 2]], np.uint8), "b": np.array([b"\xc3\xa4"], object)}
    response = json_codec.decode_response(json_codec.encode_response("m", "2", "r", outputs))
    assert (response.model_name, response.model_version, response.id) == ("m", "2", "r")
    assert response.outputs["a"].tolist() == [[1, 2]]
    assert response.outputs["b"].tolist() == ["ä".encode()]


@pytest.mark.parametrize(
    "data", [b"", b"{}", b'{"model_name":"m","outputs":[{"name":"y","shape":[1],"datatype":"FP16"}]}']
)
def test_a_reply_that_cannot_be_read_is_a_failure(data: bytes) -> None:
    with pytest.raises(ModelFailed, match="The reply cannot be read"):
        json_codec.decode_response(data)


def test_a_request_is_written_from_anything_numpy_takes() -> None:
    written = json_codec.encode_request(
        {"x": [[1.5, 2.5]], "t": ["a"]}, request_id="r", parameters={"p": 1}, outputs=["y"]
    )
    assert json.loads(written) == {
        "inputs": [
            {"name": "x", "datatype": "FP64", "shape": [1, 2], "data": [1.5, 2.5]},
            {"name": "t", "datatype": "BYTES", "shape": [1], "data": ["a"]},
        ],
        "id": "r",
        "parameters": {"p": 1},
        "outputs": [{"name": "y"}],
    }


@pytest.mark.parametrize("given", [[[1], [1, 2]], [float("nan")], [1j], [None], np.zeros(1, np.float16)])
def test_a_request_that_json_cannot_carry_is_the_callers_mistake(given: Any) -> None:
    with pytest.raises(InvalidRequest, match='Input "x"'):
        json_codec.encode_request({"x": given})
