"""What a gateway reads of a request. Like all of a gateway it does without numpy, a third of what it would load."""

from __future__ import annotations

import msgspec

from modelmq.errors import InvalidRequest
from modelmq.protocol.parsing import parse

Scalar = bool | int | float | str
Parameters = dict[str, Scalar]


class Envelope(msgspec.Struct, frozen=True):
    """What the gateway reads of a request; the tensors stay as they came."""

    id: str | None
    parameters: Parameters


class _WireEnvelope(msgspec.Struct):
    inputs: msgspec.Raw
    id: str | None = None
    parameters: Parameters | None = None


_envelope = msgspec.json.Decoder(_WireEnvelope)


def decode_envelope(body: bytes) -> Envelope:
    """Reads id and parameters only; `inputs` must be a list but stays unread. Raises InvalidRequest."""
    wire = parse(body, _envelope)
    if bytes(memoryview(wire.inputs)[:1]) != b"[":
        raise InvalidRequest("The request's inputs must be a list of tensors.")
    return Envelope(wire.id, wire.parameters or {})
