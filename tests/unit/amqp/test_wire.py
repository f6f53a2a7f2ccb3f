"""What the receiving machine makes of single frames; streams of them, whole and broken, are tests/property's."""

from __future__ import annotations

import struct

import pytest
from pamqp import body, commands, frame, header, heartbeat

from modelmq.amqp import frames
from modelmq.amqp.properties import Properties
from modelmq.amqp.wire import Called, Confirmed, Delivery, Returned, Wire
from modelmq.errors import ProtocolViolation

MAX_BODY = 10_000
DELIVER = commands.Basic.Deliver("c1", 7, True, "x", "key")


@pytest.fixture
def wire() -> Wire:
    made = Wire(MAX_BODY)
    made.set_frame_max(4096)
    made.open_channel(1)
    return made


def content(size: int, properties: commands.Basic.Properties | None = None) -> bytes:
    return frame.marshal(header.ContentHeader(0, size, properties or commands.Basic.Properties()), 1)


def method(value: frames.Method, channel: int = 1) -> bytes:
    return frame.marshal(value, channel)


def part(data: bytes, channel: int = 1) -> bytes:
    return frame.marshal(body.ContentBody(data), channel)


def raw(kind: int, payload: bytes, channel: int = 1, end: bytes = b"\xce") -> bytes:
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + end


def test_a_delivery_is_put_together(wire: Wire) -> None:
    properties = commands.Basic.Properties(correlation_id="c", headers={"k": 1})
    events = wire.receive(method(DELIVER) + content(5, properties) + part(b"he") + part(b"llo"))
    assert len(events) == 1
    delivery = events[0]
    assert isinstance(delivery, Delivery)
    assert (delivery.channel, delivery.consumer_tag, delivery.delivery_tag) == (1, "c1", 7)
    assert (delivery.redelivered, delivery.exchange, delivery.routing_key) == (True, "x", "key")
    assert (delivery.body, delivery.body_size) == (b"hello", 5)
    assert delivery.properties == Properties(correlation_id="c", headers={"k": 1})
    assert delivery.properties is delivery.properties


def test_an_empty_body_needs_no_body_frame(wire: Wire) -> None:
    (delivery,) = wire.receive(method(DELIVER) + content(0))
    assert isinstance(delivery, Delivery)
    assert delivery.body == b""


def test_empty_body_frames_are_harmless(wire: Wire) -> None:
    (delivery,) = wire.receive(method(DELIVER) + content(2) + part(b"") + part(b"a") + part(b"") + part(b"b"))
    assert isinstance(delivery, Delivery)
    assert delivery.body == b"ab"


def test_a_returned_message_is_one(wire: Wire) -> None:
    (returned,) = wire.receive(method(commands.Basic.Return(312, "NO_ROUTE", "x", "key")) + content(1) + part(b"a"))
    assert isinstance(returned, Returned)
    assert (returned.exchange, returned.routing_key, returned.body) == ("x", "key", b"a")


@pytest.mark.parametrize("multiple", [False, True])
def test_verdicts(wire: Wire, multiple: bool) -> None:
    data = method(commands.Basic.Ack(5, multiple)) + method(commands.Basic.Nack(2**63 - 1, multiple))
    assert wire.receive(data) == [Confirmed(1, 5, multiple, True), Confirmed(1, 2**63 - 1, multiple, False)]


def test_other_methods_are_pamqps(wire: Wire) -> None:
    (event,) = wire.receive(method(commands.Queue.DeclareOk("q", 1, 2)))
    assert isinstance(event, Called)
    assert isinstance(event.method, commands.Queue.DeclareOk)
    assert dict(event.method) == {"queue": "q", "message_count": 1, "consumer_count": 2}


def test_heartbeats_are_no_event(wire: Wire) -> None:
    assert wire.receive(frame.marshal(heartbeat.Heartbeat(), 0) * 3) == []


def test_channels_may_be_interleaved(wire: Wire) -> None:
    wire.open_channel(2)
    second = frame.marshal(commands.Basic.Deliver("c2", 1, False, "", "q"), 2)
    header_2 = frame.marshal(header.ContentHeader(0, 1, commands.Basic.Properties()), 2)
    events = wire.receive(method(DELIVER) + second + content(2) + part(b"a") + header_2 + part(b"B", 2) + part(b"b"))
    assert [(each.channel, each.body) for each in events if isinstance(each, Delivery)] == [(2, b"B"), (1, b"ab")]


@pytest.mark.parametrize("size", [MAX_BODY, MAX_BODY + 1])
def test_a_body_over_the_limit_is_dropped_and_its_size_told(wire: Wire, size: int) -> None:
    data = method(DELIVER) + content(size)
    data += b"".join(part(b"x" * min(4000, size - at)) for at in range(0, size, 4000))
    (delivery,) = wire.receive(data)
    assert isinstance(delivery, Delivery)
    assert delivery.body_size == size
    assert len(delivery.body) == (size if size <= MAX_BODY else 0)
    assert wire.receive(method(DELIVER) + content(0)), "the channel goes on"


def test_names_that_are_no_utf_8_are_kept(wire: Wire) -> None:
    data = struct.pack(">HH", 60, 60) + b"\x01c" + struct.pack(">QB", 1, 0) + b"\x00\x02\xff\xfe"
    (delivery,) = wire.receive(raw(1, data) + content(0))
    assert isinstance(delivery, Delivery)
    assert delivery.routing_key.encode("utf-8", "surrogateescape") == b"\xff\xfe"


def test_properties_that_cannot_be_read_harm_only_who_reads_them(wire: Wire) -> None:
    broken = raw(2, struct.pack(">HHQH", 60, 0, 0, 0xFFFF))
    (delivery,) = wire.receive(method(DELIVER) + broken)
    assert isinstance(delivery, Delivery)
    for _ in range(2):
        with pytest.raises(ProtocolViolation):
            _ = delivery.properties
    assert wire.receive(method(DELIVER) + content(0))


def test_a_frame_may_be_as_large_as_agreed_and_no_larger(wire: Wire) -> None:
    start = method(DELIVER) + content(5000)
    assert wire.receive(start + part(b"x" * 4088)) == []
    with pytest.raises(ProtocolViolation, match="4089 bytes; 4088 were agreed on"):
        wire.receive(part(b"x" * 4089)[:7])


def test_a_huge_frame_is_refused_before_it_is_received(wire: Wire) -> None:
    with pytest.raises(ProtocolViolation, match="4294967295 bytes"):
        wire.receive(struct.pack(">BHI", 1, 0, 2**32 - 1))


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n", "does not speak AMQP"),
        (b"\x15\x03\x03\x00\x02\x02\x50\x00", "does not speak AMQP"),
        (b"AMQP\x00\x01\x00\x00", r"another version of AMQP \(0.1.0.0\)"),
        (raw(4, b""), "does not speak AMQP"),
        (raw(0, b""), "does not speak AMQP"),
        (raw(1, b"", channel=9), "channel 9, which is not open"),
        (raw(1, b"abcd", end=b"\x00"), "does not end where it should"),
        (raw(1, b""), "too early"),
        (raw(1, b"\x00\x3c\x00"), "too early|cannot be read"),
        (raw(1, struct.pack(">HH", 60, 80)), "too early|wrong length"),
        (raw(1, struct.pack(">HHQB", 60, 80, 1, 0) + b"x"), "wrong length"),
        (raw(1, struct.pack(">HH", 60, 60) + b"\x05c"), "too early|cannot be read"),
        (raw(1, struct.pack(">HH", 60, 60) + b"\x01c" + bytes(9) + b"\x00\x00x"), "cannot be read"),
        (raw(1, struct.pack(">HH", 60, 50) + b"\x01\x38\xff"), "too early|cannot be read"),
        (raw(1, struct.pack(">HH", 99, 99)), "cannot be read"),
        (raw(1, struct.pack(">HH", 50, 11) + b"\xff"), "cannot be read"),
        (frame.marshal(commands.Basic.Deliver("c", 1, False, "", "q"), 0), "channel 0|cannot be read"),
        (content(1), "content header on channel 1 that nobody expects"),
        (part(b"a"), "body on channel 1 that nobody expects"),
        (method(DELIVER) + part(b"a"), "body on channel 1 that nobody expects"),
        (method(DELIVER) + content(1) + content(1), "nobody expects"),
        (method(DELIVER) + method(DELIVER), "in the middle of a message"),
        (method(DELIVER) + content(1) + method(commands.Channel.CloseOk()), "in the middle of a message"),
        (method(DELIVER) + content(1) + part(b"ab"), "longer than its header said"),
        (method(DELIVER) + raw(2, b"\x00\x3c"), "too early"),
        (method(DELIVER) + raw(2, struct.pack(">HHQH", 50, 0, 1, 0)), "unknown class"),
        (raw(8, b"", channel=1), "heartbeat"),
        (raw(8, b"x", channel=0), "heartbeat"),
    ],
)
def test_what_no_broker_may_send_is_one_typed_error(wire: Wire, data: bytes, sentence: str) -> None:
    with pytest.raises(ProtocolViolation, match=sentence):
        wire.receive(data)


def test_a_closed_channel_takes_nothing(wire: Wire) -> None:
    wire.receive(method(DELIVER))
    wire.close_channel(1)
    with pytest.raises(ProtocolViolation, match="not open"):
        wire.receive(content(0))


def test_a_channel_that_is_opened_again_begins_anew(wire: Wire) -> None:
    wire.receive(method(DELIVER))
    wire.close_channel(1)
    wire.open_channel(1)
    with pytest.raises(ProtocolViolation, match="nobody expects"):
        wire.receive(content(0))


def test_what_is_remembered_of_addresses_is_bounded(wire: Wire) -> None:
    for n in range(5_000):
        (delivery,) = wire.receive(method(commands.Basic.Deliver(f"c{n}", 1, False, "x", f"k{n}")) + content(0))
        assert isinstance(delivery, Delivery)
        assert (delivery.consumer_tag, delivery.routing_key) == (f"c{n}", f"k{n}")
    assert len(wire._addresses) <= 1024
    assert len(wire._consumer_tags) <= 1024


def test_what_stands_before_a_violation_is_handed_out_first(wire: Wire) -> None:
    whole = method(DELIVER) + content(0) + b"\xff" * 20
    (delivery,) = wire.receive(whole)
    assert isinstance(delivery, Delivery)
    for receive in (wire.check, lambda: wire.receive(b""), lambda: wire.receive(method(DELIVER))):
        with pytest.raises(ProtocolViolation, match="does not speak AMQP"):
            receive()


def test_a_violation_with_nothing_before_it_is_raised_at_once(wire: Wire) -> None:
    with pytest.raises(ProtocolViolation):
        wire.receive(b"\xff" * 20)
