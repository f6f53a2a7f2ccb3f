"""From numpy arrays to the JSON of a tensor: flat data, numbers as short as they can be without losing a bit.

A number of 32 bits is written with the fewest digits that read back as the same 32 bits (0.1, not
0.10000000149011612). Knows nothing of requests or models.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import msgspec
import numpy as np
import orjson

from modelmq.errors import RequestError, Unsupported
from modelmq.protocol.datatypes import datatype_of
from modelmq.protocol.envelope import Parameters
from modelmq.protocol.tensors import Array
from modelmq.protocol.validation import subject

PIECE: Final = 16_384
"""Numbers that are written at once."""
_encode = msgspec.json.Encoder().encode


class WrittenTensor(msgspec.Struct, omit_defaults=True):
    """One entry of `inputs` or `outputs`, ready to be encoded; `data` is text."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: msgspec.Raw
    parameters: Parameters | None = None


class WrittenRows(NamedTuple):
    """A tensor that is cut along its first axis: the text of each row, as it stands between the brackets of a list."""

    name: str
    datatype: str
    tail: tuple[int, ...]
    """The shape of one row."""
    texts: list[bytes]

    def rows(self, start: int, count: int) -> WrittenTensor:
        """Some of them as a tensor of its own."""
        data = msgspec.Raw(b"[" + b",".join(self.texts[start : start + count]) + b"]")
        return WrittenTensor(self.name, self.datatype, (count, *self.tail), data)


def write_tensor(name: str, array: Array, role: str, error: type[RequestError], model: str = "") -> WrittenTensor:
    """The tensor with flat data. Raises `error` naming it when JSON cannot carry its values."""
    datatype = _datatype(name, array, role, error, model)
    flat = array.ravel()
    text = _encode(_strings(flat, name, role, error, model)) if datatype == "BYTES" else _many_numbers(flat)
    return WrittenTensor(name, datatype, array.shape, msgspec.Raw(text))


def write_rows(name: str, array: Array, role: str, error: type[RequestError], model: str = "") -> WrittenRows:
    """The same of a tensor with a first axis, at once for all of its rows: most of the cost is by the call."""
    datatype = _datatype(name, array, role, error, model)
    tail = array.shape[1:]
    size = math.prod(tail)
    texts: list[bytes] = []
    if datatype == "BYTES":
        words = _strings(array.ravel(), name, role, error, model)
        texts = [_encode(words[start : start + size])[1:-1] for start in range(0, len(words), size or 1)]
    elif array.size:
        texts = _numbers(array.reshape(len(array), size))[2:-2].split(b"],[")
    return WrittenRows(name, datatype, tail, texts)


def _datatype(name: str, array: Array, role: str, error: type[RequestError], model: str) -> str:
    """Raises `error` unless JSON can carry such numbers, and these."""
    try:
        datatype = datatype_of(array.dtype)
    except Unsupported as unknown:
        raise error(f"{subject(role, name, model)} cannot be sent: {unknown.message}") from unknown
    if datatype == "FP16":
        raise error(
            f"{subject(role, name, model)} is FP16, which JSON does not carry; convert it to FP32 or use the binary "
            "tensor extension."
        )
    if datatype in ("FP32", "FP64") and not np.isfinite(array).all():
        raise error(f"{subject(role, name, model)} has NaN or Infinity, which JSON does not carry.")
    return datatype


def _many_numbers(flat: Array) -> bytes:
    """In pieces: orjson ends the process where it finds no memory for a text, and Python only the request."""
    if len(flat) <= PIECE:
        return _numbers(flat)
    pieces = [_numbers(flat[start : start + PIECE])[1:-1] for start in range(0, len(flat), PIECE)]
    return b"[" + b",".join(pieces) + b"]"


def _numbers(array: Array) -> bytes:
    """Lists within lists, as many as the array has axes."""
    own = array.astype(array.dtype.newbyteorder("="), order="C", subok=False, copy=False)
    return orjson.dumps(own, option=orjson.OPT_SERIALIZE_NUMPY)


def _strings(flat: Array, name: str, role: str, error: type[RequestError], model: str) -> list[str]:
    try:
        return [_string(element) for element in flat.tolist()]
    except UnicodeError as refused:
        raise error(
            f"{subject(role, name, model)} has bytes that are not UTF-8, which JSON does not carry."
        ) from refused
    except TypeError as refused:
        raise error(f"{subject(role, name, model)} has {refused} where BYTES needs strings or bytes.") from refused


def _string(element: object) -> str:
    if isinstance(element, bytes):
        return element.decode()
    if isinstance(element, str):
        element.encode()  # refuses a lone surrogate here, where the tensor's name is known
        return element
    raise TypeError(f"an element of type {type(element).__name__}")
