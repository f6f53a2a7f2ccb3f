"""The values on both sides of the codec: tensors as they stand in JSON, and requests and responses with arrays.

The wire records mirror the protocol's JSON, with `data` still undecoded; the others are what the rest of ModelMQ
works with. No behaviour.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from modelmq.protocol.envelope import Parameters

Array = np.ndarray[Any, Any]


class WireTensor(msgspec.Struct):
    """One entry of `inputs` or `outputs` with its data still as JSON text; empty text means the key was absent."""

    name: str
    shape: list[int]
    datatype: str
    data: msgspec.Raw = msgspec.Raw()
    parameters: Parameters | None = None


class WireRequestedOutput(msgspec.Struct, omit_defaults=True):
    """One entry of a request's `outputs`."""

    name: str
    parameters: Parameters | None = None


class WireRequest(msgspec.Struct):
    """The JSON object of an inference request; keys the protocol does not know are ignored."""

    inputs: list[WireTensor]
    id: str | None = None
    parameters: Parameters | None = None
    outputs: list[WireRequestedOutput] | None = None


class WireResponse(msgspec.Struct):
    """The JSON object of an inference response as it is read."""

    model_name: str
    outputs: list[WireTensor]
    model_version: str | None = None
    id: str | None = None
    parameters: Parameters | None = None


class InferenceRequest(msgspec.Struct, frozen=True):
    """A request that fits its model. `outputs` empty asks for all of them."""

    id: str | None
    parameters: Parameters
    inputs: dict[str, Array]
    outputs: tuple[str, ...] = ()


class InferenceResponse(msgspec.Struct, frozen=True):
    """A model's answer; `outputs` by name, BYTES as object arrays of `bytes`."""

    model_name: str
    model_version: str | None
    id: str | None
    outputs: dict[str, Array]
    parameters: Parameters
