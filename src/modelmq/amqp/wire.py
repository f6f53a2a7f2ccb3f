"""The receiving half of an AMQP connection as a pure machine: bytes in, events out.

Cuts the stream into frames however it was chunked, and puts each message together out of its method, header and body
frames. What the peer may not send ends in ProtocolViolation, after which the connection is of no use; what it sent
before still counts. Between calls it keeps at most one frame and, per channel, one body within the limit. Does not
know what an event is for.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from modelmq.amqp import frames
from modelmq.amqp.frames import BODY, FRAME_END, HEAD, HEADER, HEARTBEAT, METHOD, OVERHEAD, Method
from modelmq.amqp.properties import Properties, decode_properties
from modelmq.errors import ProtocolViolation

SMALLEST_FRAME_MAX = 4096
"""What both sides must take before they agree on more; the opening frames fit in it."""

_INDEX = struct.Struct(">I")
_TAG_AND_BITS = struct.Struct(">QB")
_CONTENT = struct.Struct(">HHQ")
_FRAME_START = HEAD.size
_MOST_KNOWN = 1024


class Delivery:
    """A message for a consumer. Its properties are decoded when somebody first asks."""

    __slots__ = (
        "_properties",
        "_raw",
        "body",
        "body_size",
        "channel",
        "consumer_tag",
        "delivery_tag",
        "exchange",
        "redelivered",
        "routing_key",
    )

    def __init__(
        self, channel: int, consumer_tag: str, delivery_tag: int, redelivered: bool, exchange: str, routing_key: str
    ) -> None:
        self.channel = channel
        self.consumer_tag = consumer_tag
        self.delivery_tag = delivery_tag
        self.redelivered = redelivered
        self.exchange = exchange
        self.routing_key = routing_key
        self.body = b""
        self.body_size = 0
        """What its sender sent; `body` is empty where that was over the connection's limit."""
        self._raw = b""
        self._properties: Properties | None = None

    @property
    def properties(self) -> Properties:
        """Raises ProtocolViolation when the sender wrote none that can be read; the connection is not harmed."""
        if self._properties is None:
            self._properties = decode_properties(self._raw)
        return self._properties

    def _filled(self, raw: bytes, body: bytes, body_size: int) -> None:
        self._raw = raw
        self.body = body
        self.body_size = body_size


class Returned(Delivery):
    """A mandatory message that no queue took, on its way back; it has no consumer and no tag."""

    __slots__ = ()


class Confirmed(NamedTuple):
    """The broker's verdict over one publish, or all up to it."""

    channel: int
    tag: int
    multiple: bool
    taken: bool


class Called(NamedTuple):
    """Any other method."""

    channel: int
    method: Method


Event: TypeAlias = Delivery | Confirmed | Called


class _Content:
    """The message that a channel is receiving, if it is."""

    __slots__ = ("keep", "message", "number", "parts", "raw", "remaining", "size")

    def __init__(self, number: int) -> None:
        self.number = number
        self.message: Delivery | None = None
        self.raw: bytes | None = None
        """None while its header is still to come."""
        self.size = 0
        self.remaining = 0
        self.keep = True
        self.parts = bytearray()
        """One buffer: a list of small pieces would take many times the memory of what they hold."""


class Wire:
    """One connection's incoming bytes."""

    def __init__(self, max_body_bytes: int) -> None:
        self._max_body_bytes = max_body_bytes
        self._largest = SMALLEST_FRAME_MAX - OVERHEAD
        self._channels: dict[int, _Content] = {0: _Content(0)}
        self._addresses: dict[bytes, tuple[str, str]] = {}
        self._consumer_tags: dict[bytes, str] = {}
        self._partial = bytearray()
        self._needed = 0
        self._violation: ProtocolViolation | None = None
        """Found behind events that were handed out first."""
        self._readers: dict[int, Callable[[bytes, _Content, int, int], Event | None]] = {
            METHOD: self._method,
            HEADER: self._header,
            BODY: self._body,
            HEARTBEAT: self._heartbeat,
        }

    def set_frame_max(self, frame_max: int) -> None:
        """From now on frames may be as large as was agreed."""
        self._largest = frame_max - OVERHEAD

    def open_channel(self, number: int) -> None:
        """The peer may send frames on this channel."""
        self._channels[number] = _Content(number)

    def close_channel(self, number: int) -> None:
        """It may not any more."""
        self._channels.pop(number, None)

    def receive(self, data: bytes) -> list[Event]:
        """What these bytes complete, in order. Raises ProtocolViolation, where events stand before it only in `check`.

        So what is heard of a peer that breaks the rules does not depend on how its bytes were cut.
        """
        self.check()
        if self._partial:
            self._partial += data
            if len(self._partial) < self._needed:  # so that a frame in many small pieces is copied once, not each time
                return []
            data = bytes(self._partial)
            self._partial.clear()
        events: list[Event] = []
        try:
            at = self._cut(data, events)
        except ProtocolViolation as error:
            self._violation = error
        except (IndexError, struct.error):
            self._violation = ProtocolViolation("The broker sent a frame that ends too early.")
        else:
            if at < len(data):
                self._partial += data[at:] if at else data
        if self._violation is not None and not events:
            raise self._violation
        return events

    def check(self) -> None:
        """After the events of `receive`: raises the ProtocolViolation that stood behind them, if one did."""
        if self._violation is not None:
            raise self._violation

    def _cut(self, data: bytes, events: list[Event]) -> int:
        """Every whole frame to its reader; where the last one ends."""
        readers, channels, largest = self._readers, self._channels, self._largest
        at, end = 0, len(data)
        self._needed = _FRAME_START
        while end - at >= _FRAME_START:
            kind, number, size = HEAD.unpack_from(data, at)
            start = at + _FRAME_START
            stop = start + size
            channel = channels.get(number)
            reader = readers.get(kind)
            if channel is None or reader is None or size > largest:
                raise self._misfit(data[at : at + OVERHEAD], kind, number, size)
            if stop >= end:
                self._needed = stop - at + 1
                break
            if data[stop] != FRAME_END:
                raise ProtocolViolation("The broker sent a frame that does not end where it should.")
            event = reader(data, channel, start, stop)
            if event is not None:
                events.append(event)
            at = stop + 1
        return at

    def _method(self, data: bytes, channel: _Content, start: int, stop: int) -> Event | None:
        if channel.message is not None:
            raise ProtocolViolation(f"The broker sent a method on channel {channel.number} in the middle of a message.")
        index = _INDEX.unpack_from(data, start)[0]
        at = start + 4
        if index == frames.DELIVER:
            after_tag = at + 1 + data[at]
            tag, redelivered = _TAG_AND_BITS.unpack_from(data, after_tag)
            exchange, routing_key = self._address(data[after_tag + 9 : stop])
            consumer_tag = self._consumer_tag(data[at + 1 : after_tag])
            channel.message = Delivery(channel.number, consumer_tag, tag, redelivered & 1 == 1, exchange, routing_key)
        elif index in (frames.ACK, frames.NACK):
            tag, bits = _TAG_AND_BITS.unpack_from(data, at)
            if at + 9 != stop:
                raise ProtocolViolation("The broker sent a confirm of the wrong length.")
            return Confirmed(channel.number, tag, bits & 1 == 1, index == frames.ACK)
        elif index == frames.RETURN:
            text_end = at + 3 + data[at + 2]  # behind the reply code and its text
            exchange, routing_key = self._address(data[text_end:stop])
            channel.message = Returned(channel.number, "", 0, False, exchange, routing_key)
        else:
            return self._other(data, channel.number, start, stop)
        if channel.number == 0:
            raise ProtocolViolation("The broker sent a message on channel 0, where none has a place.")
        return None

    def _other(self, data: bytes, channel: int, start: int, stop: int) -> Called:
        try:
            return Called(channel, frames.decode_method(data[start - _FRAME_START : stop + 1]))
        except Exception as error:  # pamqp's decoders let many kinds of errors through
            raise ProtocolViolation(
                f"The broker sent a method that cannot be read ({type(error).__name__})."
            ) from error

    def _header(self, data: bytes, channel: _Content, start: int, stop: int) -> Event | None:
        if channel.message is None or channel.raw is not None:
            raise ProtocolViolation(
                f"The broker sent a content header on channel {channel.number} that nobody expects."
            )
        if stop - start < _CONTENT.size + 2:
            raise ProtocolViolation("The broker sent a content header that ends too early.")
        class_id, weight, size = _CONTENT.unpack_from(data, start)
        if class_id != frames.BASIC or weight != 0:
            raise ProtocolViolation(f"The broker sent a content header of the unknown class {class_id}.")
        channel.raw = data[start + _CONTENT.size : stop]
        channel.size = channel.remaining = size
        channel.keep = size <= self._max_body_bytes
        return self._complete(channel, b"") if size == 0 else None

    def _body(self, data: bytes, channel: _Content, start: int, stop: int) -> Event | None:
        if channel.raw is None:
            raise ProtocolViolation(f"The broker sent a body on channel {channel.number} that nobody expects.")
        size = stop - start
        if size > channel.remaining:
            raise ProtocolViolation("The broker sent a body that is longer than its header said.")
        channel.remaining -= size
        if channel.remaining == 0 and not channel.parts:
            return self._complete(channel, data[start:stop] if channel.keep else b"")
        if size and channel.keep:
            channel.parts += memoryview(data)[start:stop]
        return self._complete(channel, bytes(channel.parts)) if channel.remaining == 0 else None

    def _heartbeat(self, _data: bytes, channel: _Content, start: int, stop: int) -> Event | None:
        if channel.number or start != stop:
            raise ProtocolViolation("The broker sent a heartbeat with a channel or a content, which it has not.")
        return None

    def _address(self, data: bytes) -> tuple[str, str]:
        """Exchange and routing key; messages come to few addresses many times."""
        known = self._addresses.get(data)
        if known is None:
            if len(self._addresses) >= _MOST_KNOWN:
                self._addresses.clear()
            exchange_end = 1 + data[0]
            key_end = exchange_end + 1 + data[exchange_end]
            if key_end != len(data):
                raise ProtocolViolation("The broker sent a message whose address cannot be read.")
            known = self._addresses[data] = _text(data[1:exchange_end]), _text(data[exchange_end + 1 :])
        return known

    def _consumer_tag(self, data: bytes) -> str:
        known = self._consumer_tags.get(data)
        if known is None:
            if len(self._consumer_tags) >= _MOST_KNOWN:
                self._consumer_tags.clear()
            known = self._consumer_tags[data] = _text(data)
        return known

    def _complete(self, channel: _Content, body: bytes) -> Delivery | None:
        message, raw = channel.message, channel.raw
        if message is None or raw is None:
            return None
        message._filled(raw, body, channel.size)
        channel.message = channel.raw = None
        if channel.parts:
            channel.parts = bytearray()
        return message

    def _misfit(self, head: bytes, kind: int, channel: int, size: int) -> ProtocolViolation:
        if head.startswith(b"AMQP"):
            version = ".".join(map(str, head[4:]))
            return ProtocolViolation(f"The broker speaks another version of AMQP ({version}) than 0-9-1.")
        if kind not in self._readers:
            return ProtocolViolation("What answers there does not speak AMQP.")
        if size > self._largest:
            return ProtocolViolation(f"The broker sent a frame of {size} bytes; {self._largest} were agreed on.")
        return ProtocolViolation(f"The broker sent a frame on channel {channel}, which is not open.")


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
