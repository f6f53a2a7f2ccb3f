"""Field tables, the typed key-value maps in AMQP headers and arguments, in RabbitMQ's dialect of the types.

Hand-coded because every message has one; pamqp is the oracle in the tests. Bytes that come in are hostile until
decoded: lengths are checked against what is there, nesting is bounded. Types:
https://www.rabbitmq.com/docs/amqp-0-9-1-errata
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from modelmq.errors import ProtocolViolation

MAX_DEPTH = 32

_U8 = struct.Struct(">B")
_I8 = struct.Struct(">b")
_I16 = struct.Struct(">h")
_U16 = struct.Struct(">H")
_I32 = struct.Struct(">i")
_U32 = struct.Struct(">I")
_I64 = struct.Struct(">q")
_U64 = struct.Struct(">Q")
_F32 = struct.Struct(">f")
_F64 = struct.Struct(">d")
_TAGGED_I64 = struct.Struct(">cq")
_TAGGED_F64 = struct.Struct(">cd")
_TAGGED_LENGTH = struct.Struct(">cI")
_DECIMAL = struct.Struct(">Bi")  # the specification is vague; signed is what other clients write and read


def encode_table(table: Mapping[str, Any]) -> bytes:
    """The table with its length in front. ValueError or TypeError for what AMQP cannot hold, as in any codec."""
    parts: list[bytes] = []
    for name, value in table.items():
        if not isinstance(name, str):
            raise TypeError(f"A key of an AMQP table is a text, not {name!r}.")
        key = name.encode("utf-8", "surrogateescape")
        if len(key) > 255:
            raise ValueError(f"The key {name[:40]!r}… of a table has more than 255 bytes.")
        parts += (_U8.pack(len(key)), key, _encode_value(value))
    body = b"".join(parts)
    return _U32.pack(len(body)) + body


def _encode_value(value: Any) -> bytes:
    encoder = _ENCODERS.get(type(value))
    if encoder is not None:
        return encoder(value)
    if isinstance(value, Mapping):
        return b"F" + encode_table(value)
    raise TypeError(f"A value of type {type(value).__name__} cannot stand in an AMQP table.")


def _encode_int(value: int) -> bytes:
    if not -(2**63) <= value < 2**63:
        raise ValueError(f"The number {value} does not fit into the 64 bits of an AMQP table.")
    return _TAGGED_I64.pack(b"l", value)


def _encode_text(value: str) -> bytes:
    data = value.encode("utf-8", "surrogateescape")
    return _TAGGED_LENGTH.pack(b"S", len(data)) + data


def encode_time(value: datetime) -> bytes:
    """Whole seconds since 1970. ValueError for what was before."""
    seconds = int(value.timestamp())
    if seconds < 0:
        raise ValueError(f"The time {value} is before 1970; AMQP cannot carry it.")
    return _U64.pack(seconds)


def _encode_decimal(value: Decimal) -> bytes:
    sign, digits, exponent = value.as_tuple()
    if not isinstance(exponent, int) or not -255 <= exponent <= 0:
        raise ValueError(f"The number {value} has no form in an AMQP table.")
    unscaled = int("".join(map(str, digits)) or "0") * (-1 if sign else 1)
    if not -(2**31) <= unscaled < 2**31:
        raise ValueError(f"The number {value} has no form in an AMQP table.")
    return b"D" + _DECIMAL.pack(-exponent, unscaled)


def _encode_list(value: list[Any] | tuple[Any, ...]) -> bytes:
    body = b"".join(_encode_value(item) for item in value)
    return _TAGGED_LENGTH.pack(b"A", len(body)) + body


_ENCODERS: dict[type, Callable[[Any], bytes]] = {
    str: _encode_text,
    int: _encode_int,
    bool: lambda value: b"t\x01" if value else b"t\x00",
    float: lambda value: _TAGGED_F64.pack(b"d", value),
    bytes: lambda value: _TAGGED_LENGTH.pack(b"x", len(value)) + value,
    bytearray: lambda value: _TAGGED_LENGTH.pack(b"x", len(value)) + bytes(value),
    type(None): lambda _: b"V",
    datetime: lambda value: b"T" + encode_time(value),
    Decimal: _encode_decimal,
    list: _encode_list,
    tuple: _encode_list,
}


def decode_table(data: bytes, start: int, end: int, depth: int = 0) -> tuple[dict[str, Any], int]:
    """The table at `start` with the place behind it, which is at most `end`. Raises ProtocolViolation."""
    try:
        at, stop = _span(data, start, end)
        if depth > MAX_DEPTH:
            raise ProtocolViolation(f"A table is nested more than {MAX_DEPTH} deep.")
        table: dict[str, Any] = {}
        while at < stop:
            key_end = at + 1 + data[at]
            if key_end >= stop:
                raise ProtocolViolation("A key of a table is longer than the table.")
            key = data[at + 1 : key_end].decode("utf-8", "surrogateescape")
            table[key], at = _decode_value(data, key_end, stop, depth)
    except (struct.error, IndexError) as error:
        raise ProtocolViolation("A table ends before its last value.") from error
    return table, stop


def _span(data: bytes, start: int, end: int) -> tuple[int, int]:
    """Where something with a 32-bit length begins and ends."""
    at = start + 4
    stop = at + int(_U32.unpack_from(data, start)[0])
    if stop > end:
        raise ProtocolViolation("A value of a table is longer than what holds it.")
    return at, stop


def _decode_value(data: bytes, start: int, end: int, depth: int) -> tuple[Any, int]:
    kind = data[start : start + 1]
    at = start + 1
    if kind == b"S":
        at, stop = _span(data, at, end)
        return data[at:stop].decode("utf-8", "surrogateescape"), stop
    if (number := _NUMBERS.get(kind)) is not None:
        stop = at + number.size
        value: Any = number.unpack_from(data, at)[0]
    elif kind == b"t":
        stop = at + 1
        value = data[at] != 0
    elif kind == b"V":
        return None, at
    elif kind == b"F":
        return decode_table(data, at, end, depth + 1)
    else:
        value, stop = _decode_rare(kind, data, at, end, depth)
    if stop > end:
        raise ProtocolViolation("A value of a table is longer than what holds it.")
    return value, stop


def _decode_rare(kind: bytes, data: bytes, at: int, end: int, depth: int) -> tuple[Any, int]:
    if kind == b"x":
        at, stop = _span(data, at, end)
        return data[at:stop], stop
    if kind == b"T":
        return as_time(_U64.unpack_from(data, at)[0]), at + 8
    if kind == b"D":
        scale, unscaled = _DECIMAL.unpack_from(data, at)
        return Decimal(unscaled).scaleb(-scale), at + 5
    if kind == b"A":
        at, stop = _span(data, at, end)
        if depth >= MAX_DEPTH:
            raise ProtocolViolation(f"A table is nested more than {MAX_DEPTH} deep.")
        items: list[Any] = []
        while at < stop:
            item, at = _decode_value(data, at, stop, depth + 1)
            items.append(item)
        return items, stop
    raise ProtocolViolation(f"A table has a value of the unknown type {kind!r}.")


def as_time(seconds: int) -> datetime:
    """A timestamp; what no calendar holds is a violation. Raises ProtocolViolation."""
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise ProtocolViolation(f"The timestamp {seconds} is no date.") from error


_NUMBERS: dict[bytes, struct.Struct] = {
    b"l": _I64,
    b"L": _I64,  # RabbitMQ reads both as signed
    b"I": _I32,
    b"i": _U32,
    b"d": _F64,
    b"b": _I8,
    b"B": _U8,
    b"s": _I16,
    b"u": _U16,
    b"f": _F32,
}
