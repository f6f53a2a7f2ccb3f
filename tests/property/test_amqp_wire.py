"""The receiving machine against streams that pamqp wrote: whole, cut anywhere, and damaged in every way."""

from __future__ import annotations

import itertools
import random
import struct
import time
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pamqp import body, commands, frame, header, heartbeat

from modelmq.amqp import frames
from modelmq.amqp.wire import Called, Confirmed, Delivery, Event, Returned, Wire
from modelmq.errors import ProtocolViolation

CHANNELS = (1, 2, 300)
FRAME_MAX = 4096
MAX_BODY = 6_000
TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
EXCHANGES = st.text("ab-_.:/ ", max_size=20)  # pamqp writes no others
TAGS = st.integers(0, 2**63 - 1)
METHODS = st.sampled_from(
    [
        commands.Channel.OpenOk(),
        commands.Queue.DeclareOk("q", 1, 2),
        commands.Basic.Cancel("c"),
        commands.Channel.Close(404, "NOT_FOUND", 50, 10),
    ]
)


def opened(frame_max: int = FRAME_MAX) -> Wire:
    wire = Wire(MAX_BODY)
    wire.set_frame_max(frame_max)
    for channel in CHANNELS:
        wire.open_channel(channel)
    return wire


def plain(event: Event) -> tuple[Any, ...]:
    """An event as a value that can be compared."""
    if isinstance(event, Called):
        return ("called", event.channel, event.method.name, dict(event.method))
    if isinstance(event, Confirmed):
        return ("confirmed", *event)
    kind = "returned" if isinstance(event, Returned) else "delivery"
    address = (event.exchange, event.routing_key)
    return (kind, event.channel, event.consumer_tag, event.delivery_tag, event.redelivered, *address, event.body,
            event.body_size, event.properties.correlation_id, event.properties.headers)  # fmt: skip


@st.composite
def message(draw: st.DrawFn, channel: int) -> tuple[list[bytes], list[tuple[Any, ...]]]:
    """The frames of one message or method, and the event they should be."""

    def framed(value: Any) -> bytes:
        return frame.marshal(value, channel)

    kind = draw(st.sampled_from(["delivery", "returned", "ack", "nack", "method", "heartbeat"]))
    if kind in ("ack", "nack"):
        tag, multiple = draw(TAGS), draw(st.booleans())
        verdict = commands.Basic.Ack(tag, multiple) if kind == "ack" else commands.Basic.Nack(tag, multiple)
        return [framed(verdict)], [("confirmed", channel, tag, multiple, kind == "ack")]
    if kind == "method":
        method = draw(METHODS)
        return [framed(method)], [("called", channel, method.name, dict(method))]
    if kind == "heartbeat":
        return [frame.marshal(heartbeat.Heartbeat(), 0)], []
    exchange, key, correlation_id = draw(EXCHANGES), draw(TEXT), draw(TEXT)
    tag, redelivered = draw(TAGS), draw(st.booleans())
    parts = draw(st.lists(st.binary(max_size=30) | st.integers(0, 4088).map(bytes), max_size=4))
    content = b"".join(parts)
    properties = commands.Basic.Properties(correlation_id=correlation_id or None, headers={"k": tag})
    start = (
        commands.Basic.Deliver("c1", tag, redelivered, exchange, key)
        if kind == "delivery"
        else commands.Basic.Return(312, "NO_ROUTE", exchange, key)
    )
    pieces = [framed(start), framed(header.ContentHeader(0, len(content), properties))]
    if content:  # behind the last byte of a body nothing of it may follow
        while parts and not parts[-1]:
            parts.pop()
        pieces += [framed(body.ContentBody(part)) for part in parts]
    told = ("c1", tag, redelivered) if kind == "delivery" else ("", 0, False)
    kept = content if len(content) <= MAX_BODY else b""
    return pieces, [(kind, channel, *told, exchange, key, kept, len(content), correlation_id or None, {"k": tag})]


@st.composite
def streams(draw: st.DrawFn) -> tuple[list[bytes], list[tuple[Any, ...]]]:
    """Frames of several channels, interleaved as the order of each channel allows, and the events they are."""
    waiting = []
    for channel in CHANNELS:
        for pieces, events in draw(st.lists(message(channel), max_size=3)):
            waiting.append((channel, pieces, events))
    queues = {channel: [each[1:] for each in waiting if each[0] == channel] for channel in CHANNELS}
    rest: dict[int, list[tuple[bytes, list[tuple[Any, ...]]]]] = {}
    for channel, messages in queues.items():
        rest[channel] = [
            (piece, events if at == len(pieces) - 1 else [])
            for pieces, events in messages
            for at, piece in enumerate(pieces)
        ]
    written: list[bytes] = []
    expected: list[tuple[Any, ...]] = []
    while live := [channel for channel in CHANNELS if rest[channel]]:
        piece, events = rest[draw(st.sampled_from(live))].pop(0)
        written.append(piece)
        expected += events
    return written, expected


def chunks(data: bytes, cuts: list[int]) -> Iterator[bytes]:
    places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    return (data[start:stop] for start, stop in itertools.pairwise(places))


def check_bounded(wire: Wire) -> None:
    assert len(wire._partial) < FRAME_MAX
    for channel in wire._channels.values():
        assert len(channel.parts) <= MAX_BODY
        assert len(channel.raw or b"") < FRAME_MAX


def receive_hostile(wire: Wire, pieces: Iterator[bytes]) -> bool:
    """Feed until the end or the one permitted error, whether that came. Memory is checked after each step."""
    for piece in pieces:
        events, violated = heard(wire, piece)
        for event in events:
            readable(event)
        if violated:
            return True
        check_bounded(wire)
    return False


def heard(wire: Wire, piece: bytes) -> tuple[list[Event], bool]:
    """What comes of these bytes, and whether it ends with the one permitted error."""
    events: list[Event] = []
    try:
        events = wire.receive(piece)
        wire.check()
    except ProtocolViolation:
        with pytest.raises(ProtocolViolation):  # for good
            wire.receive(b"")
        return events, True
    return events, False


def readable(event: Event) -> tuple[Any, ...]:
    """As `plain`; of a message whose properties no honest sender wrote, that much."""
    try:
        return plain(event)
    except ProtocolViolation as error:
        return (error.message,)


@settings(deadline=None)  # the machine may be busy
@given(streams())
def test_a_stream_is_its_events(stream: tuple[list[bytes], list[tuple[Any, ...]]]) -> None:
    written, expected = stream
    assert [plain(event) for event in opened().receive(b"".join(written))] == expected


@settings(deadline=None)  # the machine may be busy
@given(streams(), st.lists(st.integers(0, 2**20), max_size=30))
def test_a_stream_is_the_same_events_however_it_is_cut(
    stream: tuple[list[bytes], list[tuple[Any, ...]]], cuts: list[int]
) -> None:
    written, expected = stream
    wire = opened()
    found = []
    for piece in chunks(b"".join(written), cuts):
        found += [plain(event) for event in wire.receive(piece)]
        check_bounded(wire)
    assert found == expected
    assert not wire._partial


@settings(deadline=None)  # the machine may be busy
@given(streams())
def test_a_stream_may_come_byte_by_byte(stream: tuple[list[bytes], list[tuple[Any, ...]]]) -> None:
    written, expected = stream
    data = b"".join(written)[:9000]
    whole = [plain(event) for event in opened().receive(data)]
    wire = opened()
    assert [plain(event) for at in range(len(data)) for event in wire.receive(data[at : at + 1])] == whole
    assert whole == expected[: len(whole)]


@settings(deadline=None)  # the machine may be busy
@given(st.binary(max_size=600), st.lists(st.integers(0, 2**20), max_size=5))
def test_any_bytes_are_events_or_one_error(data: bytes, cuts: list[int]) -> None:
    receive_hostile(opened(), chunks(data, cuts))


@settings(deadline=None)  # the machine may be busy
@given(
    st.lists(
        st.tuples(
            st.sampled_from([1, 2, 3, 8]),
            st.sampled_from((0, *CHANNELS)),
            st.binary(max_size=40)
            | st.tuples(st.sampled_from([10, 20, 40, 50, 60, 85, 90]), st.integers(0, 130), st.binary(max_size=60)).map(
                lambda method: struct.pack(">HH", *method[:2]) + method[2]
            ),
        ),
        max_size=8,
    ),
    st.lists(st.integers(0, 2**20), max_size=5),
)
def test_frames_of_any_content_are_events_or_one_error(parts: list[tuple[int, int, bytes]], cuts: list[int]) -> None:
    data = b"".join(frames.HEAD.pack(kind, channel, len(load)) + load + b"\xce" for kind, channel, load in parts)
    receive_hostile(opened(), chunks(data, cuts))


@settings(deadline=None)  # the machine may be busy
@given(streams(), st.data())
def test_a_damaged_stream_is_events_or_one_error(
    stream: tuple[list[bytes], list[tuple[Any, ...]]], data: st.DataObject
) -> None:
    damaged = damage(list(stream[0]), data)
    cuts = data.draw(st.lists(st.integers(0, 2**20), max_size=6))
    violated = receive_hostile(opened(), chunks(damaged, cuts))
    # The same is heard, and the same is wrong, however the bytes were cut.
    whole, wrong = heard(opened(), damaged)
    assert violated == wrong
    wire, found = opened(), []
    for piece in chunks(damaged, cuts):
        events, wrong = heard(wire, piece)
        found += events
        if wrong:
            break
    assert repr([readable(event) for event in found]) == repr([readable(event) for event in whole])  # nan is not nan


def damage(written: list[bytes], data: st.DataObject) -> bytes:
    """The stream with one to three things done to its frames that no broker does."""
    for _ in range(data.draw(st.integers(1, 3))):
        if not written:
            break
        at = data.draw(st.integers(0, len(written) - 1))
        done = data.draw(
            st.sampled_from(["flip", "cut", "drop", "double", "swap", "longer", "shorter", "insert", "move"])
        )
        piece = bytearray(written[at])
        if done == "flip":
            piece[data.draw(st.integers(0, len(piece) - 1))] ^= data.draw(st.integers(1, 255))
            written[at] = bytes(piece)
        elif done == "cut":
            written[at] = bytes(piece[: data.draw(st.integers(0, len(piece)))]) or b"\x01"
        elif done == "drop":
            del written[at]
        elif done == "double":
            written.insert(at, written[at])
        elif done == "swap":
            other = data.draw(st.integers(0, len(written) - 1))
            written[at], written[other] = written[other], written[at]
        elif done == "move":  # the same frame on a channel where it has no place, or one that is not open
            written[at] = (
                bytes(piece[:1])
                + struct.pack(">H", data.draw(st.sampled_from([0, 1, 2, 3, 65_535])))
                + bytes(piece[3:])
            )
        elif done == "insert":
            written.insert(at, data.draw(st.binary(max_size=20)) or b"\xce")
        else:
            (size,) = struct.unpack_from(">I", piece.ljust(7, b"\0"), 3)
            wrong = size + data.draw(st.sampled_from([1, 8, 300, 5_000])) * (1 if done == "longer" else -1)
            written[at] = bytes(piece[:3]) + struct.pack(">I", wrong % 2**32) + bytes(piece[7:])
    # Enough behind it that a length which was believed would be waited for.
    return b"".join(written) + (bytes(2 * FRAME_MAX) if data.draw(st.booleans()) else b"")


@pytest.mark.parametrize("seed", range(3))
def test_many_random_frames_never_hang(seed: int) -> None:
    """What hypothesis is too slow for: megabytes of frames that are nearly right."""
    chance = random.Random(seed)
    good = [
        frame.marshal(commands.Basic.Deliver("c", 1, False, "x", "k"), 1),
        frame.marshal(header.ContentHeader(0, 3, commands.Basic.Properties(headers={"a": [1, {"b": None}]})), 1),
        frame.marshal(body.ContentBody(b"abc"), 1),
        frame.marshal(commands.Basic.Ack(1, True), 2),
        frame.marshal(commands.Connection.Start(0, 9, {"capabilities": {"x": True}}, "PLAIN", "en_US"), 0),
    ]
    violations = 0
    for _ in range(4_000):
        data = bytearray(b"".join(chance.choices(good, k=6)))
        for _ in range(chance.randint(0, 3)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        violations += receive_hostile(opened(), iter([bytes(data)]))
    assert violations > 1_000


def nested(depth: int, kind: bytes) -> bytes:
    value = b"V"
    for _ in range(depth):
        inside = value if kind == b"A" else b"\x01k" + value
        value = kind + struct.pack(">I", len(inside)) + inside
    return struct.pack(">I", len(value) + 2) + b"\x01k" + value


@pytest.mark.parametrize("kind", [b"A", b"F"])
@pytest.mark.parametrize("depth", [100, 3_000, 20_000])
def test_tables_nested_as_deep_as_a_frame_allows_end_in_one_error(kind: bytes, depth: int) -> None:
    table = nested(depth, kind)
    start = struct.pack(">HHBB", 10, 10, 0, 9) + table + struct.pack(">I5sI5s", 5, b"PLAIN", 5, b"en_US")
    try:
        opened(262_144).receive(frames.HEAD.pack(1, 0, len(start)) + start + b"\xce")
    except ProtocolViolation as error:
        assert "cannot be read" in error.message  # noqa: PT017 - pamqp may take what is shallow
    load = struct.pack(">HHQH", 60, 0, 0, 1 << 13) + table
    message = frame.marshal(commands.Basic.Deliver("c", 1, False, "x", "k"), 1)
    (delivery,) = opened(262_144).receive(message + frames.HEAD.pack(2, 1, len(load)) + load + b"\xce")
    assert isinstance(delivery, Delivery)
    with pytest.raises(ProtocolViolation, match="nested"):
        _ = delivery.properties


def test_a_large_body_in_tiny_frames_takes_the_memory_of_its_bytes() -> None:
    size = 300_000
    wire = Wire(size)
    wire.open_channel(1)
    wire.receive(
        frame.marshal(commands.Basic.Deliver("c", 1, False, "x", "k"), 1)
        + frame.marshal(header.ContentHeader(0, size, commands.Basic.Properties()), 1)
    )
    piece = frame.marshal(body.ContentBody(b"ab"), 1)
    tracemalloc.start()
    try:
        for _ in range(size // 2 - 1):
            assert wire.receive(piece) == []
        assert tracemalloc.get_traced_memory()[1] < 2 * size
    finally:
        tracemalloc.stop()
    (delivery,) = wire.receive(piece)
    assert isinstance(delivery, Delivery)
    assert delivery.body == b"ab" * (size // 2)


def test_a_body_said_to_be_endless_is_not_kept() -> None:
    wire = opened()
    wire.receive(
        frame.marshal(commands.Basic.Deliver("c", 1, False, "x", "k"), 1)
        + frames.HEAD.pack(2, 1, 14) + struct.pack(">HHQH", 60, 0, 2**64 - 1, 0) + b"\xce"
    )  # fmt: skip
    piece = frame.marshal(body.ContentBody(b"x" * 4000), 1)
    for _ in range(200):
        assert wire.receive(piece) == []
    check_bounded(wire)
    assert not wire._channels[1].parts


def test_a_frame_in_single_bytes_is_not_copied_for_each() -> None:
    """Linear, not quadratic: well under a second of this process's time against a minute."""
    wire = Wire(2_000_000)
    wire.set_frame_max(1_100_000)
    wire.open_channel(1)
    wire.receive(
        frame.marshal(commands.Basic.Deliver("c", 1, False, "x", "k"), 1)
        + frame.marshal(header.ContentHeader(0, 1_000_000, commands.Basic.Properties()), 1)
    )
    data = frame.marshal(body.ContentBody(bytes(1_000_000)), 1)
    began_s = time.process_time()
    events = [event for at in range(len(data)) for event in wire.receive(data[at : at + 1])]
    assert len(events) == 1
    assert time.process_time() - began_s < 10
