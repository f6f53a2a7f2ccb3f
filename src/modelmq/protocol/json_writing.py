"""From numpy arrays to the JSON of a tensor: flat data, numbers as short as they can be without losing a bit.

A number of 32 bits is written with the fewest digits that read back as the same 32 bits (0.1, not
0.10000000149011612). Knows nothing of requests or models.
"""

from __future__ import annotations

import math
from typing import Any, Final

import msgspec
import numpy as np

from modelmq.errors import RequestError, Unsupported
from modelmq.protocol.datatypes import datatype_of
from modelmq.protocol.tensors import Array, Parameters
from modelmq.protocol.validation import subject

FEW: Final = 64
"""Up to this many numbers of 32 bits, numpy's own shortest printing is faster than the arithmetic below."""
_SMALLEST, _LARGEST = 1e-13, 1e8
"""Magnitudes between which scaling by a power of ten is exact enough to give the shortest digits."""
_DIGITS: Final = (6, 7, 8, 9)  # any FP32 is settled by nine significant digits


class WrittenTensor(msgspec.Struct, omit_defaults=True):
    """One entry of `inputs` or `outputs`, ready to be encoded."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: list[Any]
    parameters: Parameters | None = None

    def rows(self, start: int, count: int) -> WrittenTensor:
        """Some rows of a tensor that has any, counted along its first axis."""
        tail = self.shape[1:]
        size = math.prod(tail)
        return WrittenTensor(self.name, self.datatype, (count, *tail), self.data[start * size : (start + count) * size])


def write_tensor(name: str, array: Array, role: str, error: type[RequestError], model: str = "") -> WrittenTensor:
    """The tensor with flat data. Raises `error` naming it when JSON cannot carry its values."""
    try:
        datatype = datatype_of(array.dtype)
    except Unsupported as unknown:
        raise error(f"{subject(role, name, model)} cannot be sent: {unknown.message}") from unknown
    if datatype == "FP16":
        raise error(
            f"{subject(role, name, model)} is FP16, which JSON does not carry; convert it to FP32 or use the binary "
            "tensor extension."
        )
    flat = array.ravel()
    data: list[Any]
    if datatype == "BYTES":
        data = _strings(flat, name, role, error, model)
    elif datatype in ("FP32", "FP64"):
        values = flat.tolist()
        if not math.isfinite(sum(values)) and not np.isfinite(flat).all():  # a sum may overflow where no value did
            raise error(f"{subject(role, name, model)} has NaN or Infinity, which JSON does not carry.")
        data = shortest(flat) if datatype == "FP32" else values
    else:
        data = flat.tolist()
    return WrittenTensor(name, datatype, array.shape, data)


def shortest(flat: Array) -> list[float]:
    """For finite 32-bit numbers, those doubles that the encoder prints with the fewest digits."""
    if flat.size <= FEW:
        return [float(str(number)) for number in flat.astype(np.float32, copy=False)]
    short: list[float] = _nearest_short_doubles(flat.astype(np.float64)).tolist()
    return short


def _nearest_short_doubles(exact: Array) -> Array:
    """For each number the double with the fewest decimal digits that rounds to the same 32 bits."""
    single = exact.astype(np.float32)
    magnitude = np.abs(exact)
    ordinary = (magnitude >= _SMALLEST) & (magnitude < _LARGEST)
    short = exact.copy()
    decimals = np.floor(np.log10(np.where(ordinary, magnitude, 1.0)))
    open_ = ordinary
    for digits in _DIGITS:
        scale = 10.0 ** (digits - 1 - decimals)
        candidate = np.rint(exact * scale) / scale
        fits = open_ & (candidate.astype(np.float32) == single)
        short[fits] = candidate[fits]
        open_ = open_ & ~fits
        if not open_.any():
            break
    for index in np.flatnonzero((~ordinary & (exact != 0)) | open_):
        short[index] = float(str(single[index]))
    return short


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
