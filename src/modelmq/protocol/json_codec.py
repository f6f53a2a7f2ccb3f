"""Inference requests and responses as JSON bodies of the Open Inference Protocol V2, in both directions.

The gateway reads envelopes, the worker requests; the Python client writes requests and reads responses. All content
is checked: a body either becomes a value that fits the model or one InvalidRequest or Unsupported, whose sentence
names what was wrong and what was expected. Layout of the bytes and checks of values are in the files beside.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import msgspec
import numpy as np

from modelmq.errors import InvalidRequest, ModelFailed, RequestError
from modelmq.metadata import Signature
from modelmq.protocol.content_type import require_json
from modelmq.protocol.json_reading import read_tensor
from modelmq.protocol.json_writing import WrittenRows, WrittenTensor, write_rows, write_tensor
from modelmq.protocol.tensors import (
    Array,
    Envelope,
    InferenceRequest,
    InferenceResponse,
    Parameters,
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

T = TypeVar("T")


class _WireEnvelope(msgspec.Struct):
    inputs: msgspec.Raw
    id: str | None = None
    parameters: Parameters | None = None


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


_envelope = msgspec.json.Decoder(_WireEnvelope)
_request = msgspec.json.Decoder(WireRequest)
_response = msgspec.json.Decoder(WireResponse)
_encode = msgspec.json.Encoder().encode

_BYTE = re.compile(r"\(byte (\d+)\)\Z")
_AT = re.compile(r" - at `\$\.?([^`]*)`\Z")
_NOT_JSON_NUMBERS = (b"NaN", b"Infinity", b"-Infinity", b"nan", b"inf", b"-inf")


def decode_envelope(body: bytes) -> Envelope:
    """Reads id and parameters only; `inputs` must be a list but stays unread. Raises InvalidRequest."""
    wire = _parse(body, _envelope)
    if bytes(memoryview(wire.inputs)[:1]) != b"[":
        raise InvalidRequest("The request's inputs must be a list of tensors.")
    return Envelope(wire.id, wire.parameters or {})


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
    wire = _parse(body, _request)
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
        wire = _parse(body, _response)
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


def _parse(body: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise InvalidRequest(_misplaced(str(error))) from error
    except msgspec.DecodeError as error:
        raise InvalidRequest(_malformed(str(error), body)) from error
    except UnicodeDecodeError as error:
        raise InvalidRequest("The body is not valid JSON: a string in it is not UTF-8.") from error
    except RecursionError as error:
        raise InvalidRequest("The body is nested too deeply.") from error


def _malformed(detail: str, body: bytes) -> str:
    place = _BYTE.search(detail)
    if place:
        # The parser points behind the sign of -Infinity.
        at = int(place.group(1))
        if body[at : at + 8].startswith(_NOT_JSON_NUMBERS) or body[max(0, at - 1) : at + 8].startswith(b"-I"):
            return f"The body is not valid JSON: it has no NaN and no Infinity (byte {at})."
    return f"The body is not valid JSON: {detail.removeprefix('JSON is malformed: ')}."


def _misplaced(detail: str) -> str:
    """A sentence from a validation error such as "Expected `str`, got `int` - at `$.inputs[0].name`"."""
    place = _AT.search(detail)
    what = _AT.sub("", detail).replace("`", "").replace(" | ", " or ")
    if place and place.group(1):
        return f"The body is not of the protocol's form: at {place.group(1)}: {what[:1].lower()}{what[1:]}."
    return f"The body is not of the protocol's form: {what[:1].lower()}{what[1:]}."
