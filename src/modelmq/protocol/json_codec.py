"""Inference requests and responses as JSON bodies of the Open Inference Protocol V2, in both directions.

The worker reads requests, the Python client writes them and reads responses. All content
is checked: a body either becomes a value that fits the model or one InvalidRequest or Unsupported, whose sentence
names what was wrong and what was expected. Layout of the bytes and checks of values are in the files beside.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
import numpy as np

from modelmq.errors import InvalidRequest, ModelFailed, RequestError
from modelmq.metadata import Signature
from modelmq.protocol.content_type import require_json
from modelmq.protocol.envelope import Parameters
from modelmq.protocol.json_reading import read_tensor
from modelmq.protocol.json_writing import WrittenRows, WrittenTensor, write_rows, write_tensor
from modelmq.protocol.parsing import parse
from modelmq.protocol.tensors import (
    Array,
    InferenceRequest,
    InferenceResponse,
    WireRequest,
    WireRequestedOutput,
    WireResponse,
    WireTensor,
)
from modelmq.protocol.validation import (
    check_complete,
    check_fit,
    check_requested,
    subject,
    unknown_input,
)


class _WrittenRequest(msgspec.Struct, omit_defaults=True):
    inputs: list[WrittenTensor]
    id: str | None = None
    parameters: Parameters | None = None
    outputs: list[WireRequestedOutput] | None = None


class _WrittenResponse(msgspec.Struct, omit_defaults=True):
    model_name: str
    model_version: str
    outputs: list[WrittenTensor]
    id: str | None = None


_request = msgspec.json.Decoder(WireRequest)
_response = msgspec.json.Decoder(WireResponse)
_encode = msgspec.json.Encoder().encode


def decode_request(
    body: bytes,
    signature: Signature,
    *,
    content_type: str | None = "application/json",
    headers: Mapping[str, object] | None = None,
    model: str = "",
) -> InferenceRequest:
    """A request whose tensors fit the signature; `model` is its name for error sentences.

    Raises InvalidRequest, or Unsupported for a content type or datatype that is not read.
    """
    require_json(content_type, headers)
    wire = parse(body, _request)
    declared = {spec.name: spec for spec in signature.inputs}
    inputs: dict[str, Array] = {}
    for tensor in wire.inputs:
        if tensor.name in inputs:
            raise InvalidRequest(f"{subject('Input', tensor.name, model)} is given twice; expected it once.")
        if declared:
            spec = declared.get(tensor.name)
            if spec is None:
                raise unknown_input(tensor.name, signature.inputs, model)
            check_fit(spec, tensor.datatype, tensor.shape, model)
        inputs[tensor.name] = _values(tensor, "Input", model)
    check_complete(inputs, signature, model)
    outputs: tuple[str, ...] = ()
    if wire.outputs:
        outputs = tuple(dict.fromkeys(output.name for output in wire.outputs))
        check_requested(outputs, signature, model)
    return InferenceRequest(wire.id, wire.parameters or {}, inputs, outputs)


def encode_response(model: str, version: str, request_id: str | None, outputs: Mapping[str, Array]) -> bytes:
    """The body of a reply. Raises ModelFailed naming the output when JSON cannot carry its values."""
    written = [write_tensor(name, array, "Output", ModelFailed, model) for name, array in outputs.items()]
    return encode_written(model, version, request_id, written)


def write_outputs(outputs: Mapping[str, Array], model: str) -> dict[str, WrittenRows]:
    """Outputs whose rows go to several requests, each then with `encode_written`. Raises ModelFailed."""
    return {name: write_rows(name, array, "Output", ModelFailed, model) for name, array in outputs.items()}


def encode_written(model: str, version: str, request_id: str | None, written: list[WrittenTensor]) -> bytes:
    """The body of a reply, of tensors that are written."""
    return _encode(_WrittenResponse(model, version, written, request_id))


def encode_request(
    inputs: Mapping[str, Any],
    *,
    request_id: str | None = None,
    parameters: Parameters | None = None,
    outputs: Iterable[str] = (),
) -> bytes:
    """The body of a request; inputs may be anything numpy makes an array of. Raises InvalidRequest."""
    written = [write_tensor(name, _array(name, given), "Input", InvalidRequest) for name, given in inputs.items()]
    asked = [WireRequestedOutput(name) for name in outputs]
    return _encode(_WrittenRequest(written, request_id, parameters or None, asked or None))


def decode_response(body: bytes) -> InferenceResponse:
    """The inverse of `encode_response`. Raises ModelFailed when the body is not a response that can be read."""
    try:
        wire = parse(body, _response)
        outputs = {tensor.name: _values(tensor, "Output", "") for tensor in wire.outputs}
    except RequestError as error:
        raise ModelFailed(f"The reply cannot be read: {error.message}") from error
    return InferenceResponse(wire.model_name, wire.model_version, wire.id, outputs, wire.parameters or {})


def _values(tensor: WireTensor, role: str, model: str) -> Array:
    if len(tensor.data) == 0:
        if tensor.parameters and "binary_data_size" in tensor.parameters:
            what = "is announced as binary data, which a JSON body does not have"
        else:
            what = "has no data"
        raise InvalidRequest(f'{subject(role, tensor.name, model)} {what}; expected its values under "data".')
    return read_tensor(tensor, role, model)


def _array(name: str, given: Any) -> Array:
    try:
        return np.asarray(given)
    except (ValueError, TypeError) as error:  # a ragged list, for instance
        raise InvalidRequest(f"{subject('Input', name)} cannot be made an array: {error}.") from error
