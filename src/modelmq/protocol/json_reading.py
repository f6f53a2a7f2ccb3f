"""From a tensor's `data` as JSON text to a numpy array, with every element checked against its datatype.

One typed decoder per datatype does the element checks in C; nested lists are compared with the shape as a pattern of
brackets and then read as a flat list, so depth costs nothing. Takes memory for an array only once the number of
elements is known to be right. Knows nothing of models.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Annotated, Any, Final

import msgspec
import numpy as np
from msgspec import Meta

from modelmq.errors import InvalidRequest, Unsupported
from modelmq.protocol.datatypes import DTYPES
from modelmq.protocol.tensors import Array, WireTensor
from modelmq.protocol.validation import element_count, shape_text, shown, subject

PIECE_BYTES: Final = 256 * 1024
"""Longer data is read piece by piece, because Python's numbers take ten times the memory of their text."""

_FP32_END = 3.4028235677973366e38
"""Halfway from the largest FP32 to the next step: from here on numbers would become infinite."""


def _integers(bits: int, *, signed: bool) -> Any:
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    if bits < 64:
        return Annotated[int, Meta(ge=low, le=high)]
    return int if signed else Annotated[int, Meta(ge=0)]  # the upper end is beyond Meta; numpy checks it


_INTEGER_BITS = (8, 16, 32, 64)
_ELEMENTS: dict[str, Any] = {
    "BOOL": bool,
    **{f"UINT{bits}": _integers(bits, signed=False) for bits in _INTEGER_BITS},
    **{f"INT{bits}": _integers(bits, signed=True) for bits in _INTEGER_BITS},
    "FP32": Annotated[float, Meta(gt=-_FP32_END, lt=_FP32_END)],
    "FP64": float,
    "BYTES": str,
}


def _list_of(element: Any) -> msgspec.json.Decoder[list[Any]]:
    return msgspec.json.Decoder(list[element])


_FLAT = {datatype: _list_of(element) for datatype, element in _ELEMENTS.items()}

_ALL_BUT_NESTING = bytes(set(range(256)) - set(b"[],"))
_NESTING_AND_SPACE = b"[] \t\r\n"

EXPECTED: dict[str, str] = {
    "BOOL": "true or false",
    **{f"UINT{bits}": f"whole numbers from 0 to {2**bits - 1}" for bits in _INTEGER_BITS},
    **{f"INT{bits}": f"whole numbers from {-(2 ** (bits - 1))} to {2 ** (bits - 1) - 1}" for bits in _INTEGER_BITS},
    "FP32": "numbers in the range of FP32",
    "FP64": "numbers in the range of FP64",
    "BYTES": "strings",
}
"""What the elements of each datatype must be, for sentences."""

_PLACE = re.compile(r"at `\$((?:\[\d+\])+)`\Z")
_GOT = re.compile(r"got `(\w+)`")
_FOUND = {
    "str": "a string",
    "null": "null",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
    "int": "a number",
    "float": "a number with a fraction or an exponent",
}


def read_tensor(tensor: WireTensor, role: str = "Input", model: str = "") -> Array:
    """The tensor's values in its shape; BYTES as an object array of `bytes`.

    Raises InvalidRequest naming the tensor and what was expected, Unsupported for FP16.
    """
    count = element_count(tensor.shape, role, tensor.name, model)
    decoder = _FLAT.get(tensor.datatype)
    if decoder is None:
        raise _unreadable_datatype(tensor, role, model)
    try:
        if tensor.datatype == "BYTES":
            return _strings(tensor, count)
        if len(tensor.data) > PIECE_BYTES:
            return _numbers_in_pieces(tensor, count, decoder)
        return _numbers(tensor, count, decoder)
    except InvalidRequest as error:
        said: Exception = error
        predicate = error.message
    except (msgspec.DecodeError, UnicodeDecodeError, OverflowError, RecursionError) as error:
        said = error
        predicate = _predicate(error, tensor)
    raise InvalidRequest(f"{subject(role, tensor.name, model)} {predicate}.") from said


# The functions below raise InvalidRequest with the rest of the sentence that read_tensor begins.


def _numbers(tensor: WireTensor, count: int, decoder: msgspec.json.Decoder[list[Any]]) -> Array:
    try:
        values = decoder.decode(tensor.data)
    except msgspec.ValidationError as error:
        if not _holds_lists(error) or len(tensor.shape) < 2:
            raise
        flat = _flattened(bytes(tensor.data), count, tensor.shape)
        values = decoder.decode(flat) if count else []
    if len(values) != count:
        raise _wrong_count(len(values), tensor.shape, count)
    return np.fromiter(values, DTYPES[tensor.datatype], count).reshape(tensor.shape)


def _numbers_in_pieces(tensor: WireTensor, count: int, decoder: msgspec.json.Decoder[list[Any]]) -> Array:
    """As `_numbers`, holding the Python numbers of one piece of the text at a time."""
    text = bytes(tensor.data)
    if not text.startswith(b"["):  # a long string or number, whose inside must not be taken for a list
        decoder.decode(text)
    if text.find(b"[", 1) >= 0:
        text = _flattened(text, count, tensor.shape)
        if count == 0:
            return np.empty(tensor.shape, DTYPES[tensor.datatype])
    found = text.count(b",") + 1 if text[1:-1].strip() else 0
    if found != count:
        raise _wrong_count(found, tensor.shape, count)
    array = np.empty(count, DTYPES[tensor.datatype])
    start, filled, end = 1, 0, len(text) - 1
    while start < end:
        stop = text.find(b",", start + PIECE_BYTES)
        stop = end if stop < 0 else stop
        values = decoder.decode(b"[" + text[start:stop] + b"]")
        array[filled : filled + len(values)] = values
        filled += len(values)
        start = stop + 1
    return array.reshape(tensor.shape)


def _strings(tensor: WireTensor, count: int) -> Array:
    try:
        values = _FLAT["BYTES"].decode(tensor.data)
    except msgspec.ValidationError as error:
        if not _holds_lists(error) or len(tensor.shape) < 2:
            raise
        values = _unnested(_nested_strings(len(tensor.shape)).decode(tensor.data), tensor.shape)
    if len(values) != count:
        raise _wrong_count(len(values), tensor.shape, count)
    array = np.empty(count, np.object_)
    array[:] = [value.encode() for value in values]
    return array.reshape(tensor.shape)


@cache
def _nested_strings(rank: int) -> msgspec.json.Decoder[list[Any]]:
    element: Any = str
    for _ in range(rank - 1):
        element = list[element]
    return _list_of(element)


def _unnested(nested: list[Any], shape: list[int]) -> list[Any]:
    level = [nested]
    for size in shape:
        if any(len(part) != size for part in level):
            raise _wrong_nesting(shape)
        level = [item for part in level for item in part]
    return level


def _flattened(text: bytes, count: int, shape: list[int]) -> bytes:
    """The text of a nested list as that of a flat one, once its brackets and commas are exactly those of the shape.

    Strings and objects survive into the result, where the element decoder refuses them.
    """
    lists = 1
    for size in shape[:-1]:
        lists *= size
        if lists > len(text):  # checked before the pattern is built: it would be larger than the text
            raise _wrong_nesting(shape)
    if count > len(text):
        raise _wrong_nesting(shape)
    pattern = b"[" + b"," * (shape[-1] - 1) + b"]" if shape else b""
    for size in reversed(shape[:-1]):
        pattern = b"[" + ((pattern + b",") * size)[:-1] + b"]"
    if text.translate(None, _ALL_BUT_NESTING) != pattern:
        raise _wrong_nesting(shape)
    return b"[" + text.translate(None, _NESTING_AND_SPACE) + b"]"


def _holds_lists(error: msgspec.ValidationError) -> bool:
    return "got `array`" in str(error)


def _wrong_count(found: int, shape: list[int], count: int) -> InvalidRequest:
    values = "1 value" if found == 1 else f"{found} values"
    return InvalidRequest(f"has {values} in its data; expected {count} for shape {shape_text(shape)}")


def _wrong_nesting(shape: list[int]) -> InvalidRequest:
    return InvalidRequest(f"has lists nested unlike its shape {shape_text(shape)}; expected that or one flat list")


def _predicate(error: Exception, tensor: WireTensor) -> str:
    """What a refused element was and what it had to be, from the decoder's own words."""
    if isinstance(error, RecursionError):
        return "has lists nested too deeply"
    if isinstance(error, UnicodeDecodeError):
        return "has a string that is not valid UTF-8"
    expected = EXPECTED[tensor.datatype]
    words = str(error)
    place = _PLACE.search(words)
    got = _GOT.search(words)
    where = (
        f" at position {place.group(1)[1:-1].replace('][', ', ')}" if place and len(tensor.data) <= PIECE_BYTES else ""
    )
    if words.startswith("Expected `array`") and not where:
        return "has data that is not a list; expected a flat list, or lists nested like its shape"
    if got and got.group(1) in _FOUND:
        return f"has {_FOUND[got.group(1)]}{where}; expected {expected}"
    if isinstance(error, msgspec.ValidationError | OverflowError):
        return f"has a value out of range{where}; expected {expected}"
    return f"has data that cannot be read ({words})"


def _unreadable_datatype(tensor: WireTensor, role: str, model: str) -> InvalidRequest | Unsupported:
    named = subject(role, tensor.name, model)
    if tensor.datatype in DTYPES:
        return Unsupported(
            f"{named} is {tensor.datatype}, which JSON does not carry; it needs the binary tensor extension."
        )
    return InvalidRequest(f"{named} has datatype {shown(tensor.datatype)}; expected one of {', '.join(DTYPES)}.")
