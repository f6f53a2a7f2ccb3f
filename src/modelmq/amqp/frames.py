"""The frames that every message needs, from values to bytes: publish, content, ack, nack; and the border to pamqp.

A frame is `type u8 · channel u16 · size u32 · payload · 0xCE`. Pure; the way back, from bytes to events, is `wire`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import lru_cache
from typing import TypeAlias

from pamqp import base, frame

Method: TypeAlias = base.Frame
"""Any AMQP method as pamqp knows it."""

PROTOCOL_HEADER = b"AMQP\x00\x00\x09\x01"
METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8
FRAME_END = 0xCE
OVERHEAD = 8
"""Bytes of a frame around its payload."""
BASIC = 60
DELIVER = BASIC << 16 | 60
RETURN = BASIC << 16 | 50
ACK = BASIC << 16 | 80
NACK = BASIC << 16 | 120
_PUBLISH = BASIC << 16 | 40

HEAD = struct.Struct(">BHI")
_END = b"\xce"
_PUBLISH_START = struct.Struct(">IH")
_CONTENT_HEADER = struct.Struct(">BHIHHQ")
_CONTENT_HEADER_SIZE = 12
_ACK_FRAME = struct.Struct(">BHIIQBB")
_HEARTBEAT_FRAME = HEAD.pack(HEARTBEAT, 0, 0) + _END


def encode_method(method: Method, channel: int) -> bytes:
    """The frame of any method."""
    return frame.marshal(method, channel)


def heartbeat() -> bytes:
    """The frame that says nothing but that we live."""
    return _HEARTBEAT_FRAME


@lru_cache(maxsize=4096)
def publish_method(channel: int, exchange: str, routing_key: str, mandatory: bool) -> bytes:
    """The method frame of basic.publish; services publish to few addresses many times. ValueError over 255 bytes."""
    payload = _PUBLISH_START.pack(_PUBLISH, 0) + _short(exchange) + _short(routing_key) + bytes([mandatory])
    return HEAD.pack(METHOD, channel, len(payload)) + payload + _END


def content(channel: int, properties: bytes, body: bytes, frame_max: int) -> bytes:
    """Header and body frames; `properties` as of `encode_properties`. ValueError when a header is over `frame_max`."""
    size = _CONTENT_HEADER_SIZE + len(properties)
    if size + OVERHEAD > frame_max:
        raise ValueError(f"The message's properties have {size} bytes; this connection takes {frame_max - OVERHEAD}.")
    header = _CONTENT_HEADER.pack(HEADER, channel, size, BASIC, 0, len(body)) + properties
    if not body:
        return header + _END
    if len(body) + OVERHEAD <= frame_max:
        return b"".join((header, _END, HEAD.pack(BODY, channel, len(body)), body, _END))
    return b"".join((header, _END, *_body_frames(channel, body, frame_max - OVERHEAD)))


def _body_frames(channel: int, body: bytes, largest: int) -> Iterator[bytes]:
    view = memoryview(body)
    for start in range(0, len(body), largest):
        part = view[start : start + largest]
        yield HEAD.pack(BODY, channel, len(part))
        yield bytes(part)
        yield _END


def ack(channel: int, tag: int, *, multiple: bool) -> bytes:
    """The frame of basic.ack."""
    return _ACK_FRAME.pack(METHOD, channel, 13, ACK, tag, multiple, FRAME_END)


def nack(channel: int, tag: int, *, multiple: bool, requeue: bool) -> bytes:
    """The frame of basic.nack."""
    return _ACK_FRAME.pack(METHOD, channel, 13, NACK, tag, multiple | requeue << 1, FRAME_END)


def decode_method(data: bytes) -> Method:
    """The method of a whole frame. Raises whatever pamqp raises, which is much; `wire` translates it."""
    method = frame.unmarshal(data)[2]
    if not isinstance(method, base.Frame):
        raise TypeError(f"{method!r} is not a method")
    return method


def _short(text: str) -> bytes:
    data = text.encode("utf-8", "surrogateescape")
    if len(data) > 255:
        raise ValueError(f"The name {text[:40]!r}… has more than 255 bytes.")
    return len(data).to_bytes(1, "big") + data
