"""The frames between a worker and a model's process: one msgpack header and the tensors' bytes behind it.

    u32 header length · u64 payload length · header, padded to 16 bytes · each tensor's bytes, padded to 16 bytes

Both sides run the same version on one machine, so numbers are in its own byte order and the format may change freely.
Tensors are read in place, without a copy, aligned and writable; BYTES elements carry a length each. Pure.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np

from modelmq.errors import ModelFailed
from modelmq.metadata import Signature

Buffer = bytes | memoryview
Tensors = dict[str, np.ndarray[Any, Any]]

PREFIX = struct.Struct("=IQ")
_LENGTH = struct.Struct("=I")
_ALIGNMENT = 16
_BYTES = "bytes"
MAX_FRAME_BYTES = 2**32
"""More than a machine should move in one batch; a larger announcement is garbage."""


class Open(msgspec.Struct, frozen=True, tag="open"):
    """To the child, once: load this model and warm it up. `settings` as plain values."""

    name: str
    version: str
    path: str
    settings: dict[str, Any]


class Run(msgspec.Struct, frozen=True, tag="run"):
    """To the child: compute these tensors."""


class Withdrawn(msgspec.Struct, frozen=True, tag="withdrawn"):
    """To the child while it computes: nobody waits for that any more. Without an answer of its own."""


class Opened(msgspec.Struct, frozen=True, tag="opened"):
    """From the child: loaded and warm. `pid` is its own."""

    signature: Signature
    pid: int


class LoadFailed(msgspec.Struct, frozen=True, tag="load_failed"):
    """From the child, which then ends: the model cannot be served."""

    message: str


class Ran(msgspec.Struct, frozen=True, tag="ran"):
    """From the child: the outputs follow."""


class Raised(msgspec.Struct, frozen=True, tag="raised"):
    """From the child: the model raised; the process goes on."""

    code: str
    message: str
    after_s: float | None = None
    """In how many seconds the model wants to see the inputs again, if it does."""


Message = Open | Run | Withdrawn | Opened | LoadFailed | Ran | Raised


class _Tensor(msgspec.Struct, frozen=True, array_like=True):
    name: str
    dtype: str
    shape: tuple[int, ...]
    size: int


class _Header(msgspec.Struct, frozen=True, array_like=True):
    message: Message
    tensors: tuple[_Tensor, ...] = ()


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Header).decode


def encode(message: Message, tensors: Mapping[str, np.ndarray[Any, Any]] | None = None) -> list[Buffer]:
    """The frame as buffers to be written one after another; they refer to the arrays' memory.

    Raises ModelFailed for an array whose type the protocol cannot carry.
    """
    heads: list[_Tensor] = []
    payload: list[Buffer] = []
    total = 0
    for name, array in (tensors or {}).items():
        dtype, data = _pack(name, array)
        size = len(data)
        heads.append(_Tensor(name, dtype, array.shape, size))
        payload.append(data)
        total += size
        if gap := -size % _ALIGNMENT:
            payload.append(bytes(gap))
            total += gap
    header = _encode(_Header(message, tuple(heads)))
    prefix = PREFIX.pack(len(header), total)
    return [prefix + header + bytes(-(len(prefix) + len(header)) % _ALIGNMENT), *payload]


def frame_size(start: Buffer | bytearray) -> int:
    """How long the frame is that begins so; at least PREFIX.size bytes must be there. Raises ModelFailed."""
    header, payload = PREFIX.unpack_from(start)
    size = _payload_start(header) + payload
    if size > MAX_FRAME_BYTES:
        raise ModelFailed(f"A frame of {size} bytes was announced between worker and model process.")
    return int(size)


def decode(frame: bytearray | memoryview) -> tuple[Message, Tensors]:
    """The inverse of `encode`; the arrays share the frame's memory. Raises ModelFailed."""
    try:
        length, _ = PREFIX.unpack_from(frame)
        view = memoryview(frame)
        header = _decode(view[PREFIX.size : PREFIX.size + length])
        tensors: Tensors = {}
        start = _payload_start(length)
        for head in header.tensors:
            tensors[head.name] = _unpack(head, view[start : start + head.size])
            start += head.size + -head.size % _ALIGNMENT
    except (msgspec.DecodeError, struct.error, ValueError, TypeError) as error:
        raise ModelFailed(f"A frame between worker and model process cannot be read: {error}.") from error
    return header.message, tensors


def _payload_start(header: int) -> int:
    length = PREFIX.size + header
    return length + -length % _ALIGNMENT


def _pack(name: str, array: np.ndarray[Any, Any]) -> tuple[str, Buffer]:
    dtype = array.dtype
    if dtype.kind in "OSU":
        return _BYTES, _pack_bytes(name, array)
    if dtype.kind not in "biuf" or dtype.itemsize > 8:
        raise ModelFailed(f'Tensor "{name}" has the numpy type {dtype}, which is none of the protocol\'s datatypes.')
    if not dtype.isnative:
        dtype = dtype.newbyteorder("=")
    data = np.ascontiguousarray(array, dtype)
    return dtype.str, data.reshape(-1).view(np.uint8).data if data.size else b""


def _pack_bytes(name: str, array: np.ndarray[Any, Any]) -> bytes:
    parts: list[bytes] = []
    for element in array.ravel().tolist():
        if isinstance(element, str):
            value = element.encode("utf-8", "replace")
        elif isinstance(element, bytes):
            value = element
        else:
            raise ModelFailed(
                f'Tensor "{name}" has an element of type {type(element).__name__} where text or bytes are needed.'
            )
        parts += (_LENGTH.pack(len(value)), value)
    return b"".join(parts)


def _unpack(head: _Tensor, data: memoryview) -> np.ndarray[Any, Any]:
    if head.dtype != _BYTES:
        return np.frombuffer(data, np.dtype(head.dtype)).reshape(head.shape)
    count = math.prod(head.shape)
    values = np.empty(count, np.object_)
    offset = 0
    for index in range(count):
        (length,) = _LENGTH.unpack_from(data, offset)
        offset += _LENGTH.size
        values[index] = bytes(data[offset : offset + length])
        offset += length
    return values.reshape(head.shape)
