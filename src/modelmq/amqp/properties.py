"""Message properties: the fourteen fields of the basic class, and their bytes in a content header.

Both directions are on the path of every message. Texts keep bytes that are not UTF-8 (as surrogates), so that what a
foreign client sent goes back to it unchanged. Pure.
"""

from __future__ import annotations

import struct
from datetime import datetime
from functools import lru_cache
from typing import Any

import msgspec

from modelmq.amqp.tables import as_time, decode_table, encode_table, encode_time
from modelmq.errors import ProtocolViolation

CONTENT_TYPE, CONTENT_ENCODING, HEADERS, DELIVERY_MODE = 1 << 15, 1 << 14, 1 << 13, 1 << 12
PRIORITY, CORRELATION_ID, REPLY_TO, EXPIRATION = 1 << 11, 1 << 10, 1 << 9, 1 << 8
MESSAGE_ID, TIMESTAMP, TYPE, USER_ID, APP_ID, CLUSTER_ID = 1 << 7, 1 << 6, 1 << 5, 1 << 4, 1 << 3, 1 << 2
_UNUSED = 0b11
"""Bit 0 would announce more flags, bit 1 has no meaning."""

_LENGTHS = tuple(bytes([length]) for length in range(256))
_FLAGS = struct.Struct(">H")
_U64 = struct.Struct(">Q")


class Properties(msgspec.Struct):
    """A message's properties; None means absent. `headers` values are what AMQP tables hold (see `tables`)."""

    content_type: str | None = None
    content_encoding: str | None = None
    headers: dict[str, Any] | None = None
    delivery_mode: int | None = None
    """2 is persistent."""
    priority: int | None = None
    correlation_id: str | None = None
    reply_to: str | None = None
    expiration: str | None = None
    """Milliseconds, as text."""
    message_id: str | None = None
    timestamp: datetime | None = None
    type: str | None = None
    user_id: str | None = None
    app_id: str | None = None


def encode_properties(properties: Properties) -> bytes:  # noqa: PLR0912 - a loop over names takes twice as long
    """Flags and fields, as they stand behind the size in a content header. ValueError for what does not fit."""
    flags = 0
    parts = [b""]
    if (text := properties.content_type) is not None:
        flags |= CONTENT_TYPE
        parts.append(_short(text))
    if (text := properties.content_encoding) is not None:
        flags |= CONTENT_ENCODING
        parts.append(_short(text))
    if properties.headers is not None:
        flags |= HEADERS
        parts.append(encode_table(properties.headers))
    if (number := properties.delivery_mode) is not None:
        flags |= DELIVERY_MODE
        parts.append(_octet(number))
    if (number := properties.priority) is not None:
        flags |= PRIORITY
        parts.append(_octet(number))
    if (text := properties.correlation_id) is not None:
        flags |= CORRELATION_ID
        parts.append(_short(text))
    if (text := properties.reply_to) is not None:
        flags |= REPLY_TO
        parts.append(_short(text))
    if (text := properties.expiration) is not None:
        flags |= EXPIRATION
        parts.append(_short(text))
    if (text := properties.message_id) is not None:
        flags |= MESSAGE_ID
        parts.append(_short(text))
    if properties.timestamp is not None:
        flags |= TIMESTAMP
        parts.append(encode_time(properties.timestamp))
    if (text := properties.type) is not None:
        flags |= TYPE
        parts.append(_short(text))
    if (text := properties.user_id) is not None:
        flags |= USER_ID
        parts.append(_short(text))
    if (text := properties.app_id) is not None:
        flags |= APP_ID
        parts.append(_short(text))
    parts[0] = _FLAGS.pack(flags)
    return b"".join(parts)


def decode_properties(data: bytes) -> Properties:
    """The inverse; `data` is flags and fields and nothing behind them. Raises ProtocolViolation."""
    try:
        return _decode(data)
    except (struct.error, IndexError) as error:
        raise ProtocolViolation("The message's properties end too early.") from error


def _decode(data: bytes) -> Properties:
    properties = Properties()
    at = 2
    end = len(data)
    for name, kind in _layout(_FLAGS.unpack_from(data)[0]):
        if kind == "text":
            stop = at + 1 + data[at]
            value: Any = data[at + 1 : stop].decode("utf-8", "surrogateescape")
        elif kind == "table":
            value, stop = decode_table(data, at, end)
        elif kind == "octet":
            value, stop = data[at], at + 1
        else:
            value, stop = as_time(_U64.unpack_from(data, at)[0]), at + 8
        if stop > end:
            raise ProtocolViolation("The message's properties end too early.")
        if name:
            setattr(properties, name, value)
        at = stop
    if at != end:
        raise ProtocolViolation("The message's properties have bytes that belong to no field.")
    return properties


@lru_cache(maxsize=256)
def _layout(flags: int) -> tuple[tuple[str, str], ...]:
    """Name and kind of each field that these flags announce, in the order of their bytes."""
    if flags & _UNUSED:
        raise ProtocolViolation(f"The message's properties have the unknown flags {flags & _UNUSED:#x}.")
    return tuple((name, kind) for flag, name, kind in _FIELDS if flags & flag)


def _octet(number: int) -> bytes:
    if not 0 <= number <= 255:
        raise ValueError(f"The number {number} does not fit into the 8 bits of a property.")
    return _LENGTHS[number]


def _short(text: str) -> bytes:
    try:
        data = text.encode()
    except UnicodeEncodeError:
        data = text.encode("utf-8", "surrogateescape")
    if len(data) > 255:
        raise ValueError(f"The property {text[:40]!r}… has more than 255 bytes.")
    return _LENGTHS[len(data)] + data


_FIELDS = (
    (CONTENT_TYPE, "content_type", "text"),
    (CONTENT_ENCODING, "content_encoding", "text"),
    (HEADERS, "headers", "table"),
    (DELIVERY_MODE, "delivery_mode", "octet"),
    (PRIORITY, "priority", "octet"),
    (CORRELATION_ID, "correlation_id", "text"),
    (REPLY_TO, "reply_to", "text"),
    (EXPIRATION, "expiration", "text"),
    (MESSAGE_ID, "message_id", "text"),
    (TIMESTAMP, "timestamp", "time"),
    (TYPE, "type", "text"),
    (USER_ID, "user_id", "text"),
    (APP_ID, "app_id", "text"),
    (CLUSTER_ID, "", "text"),  # deprecated, and not ours to keep
)
