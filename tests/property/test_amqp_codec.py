"""Our bytes as pamqp reads them, and pamqp's as we do: neither knows the other, so both are right."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pamqp import commands, decode, encode, frame, header

from modelmq.amqp import frames
from modelmq.amqp.properties import Properties, decode_properties, encode_properties
from modelmq.amqp.tables import decode_table, encode_table
from modelmq.errors import ProtocolViolation

TEXT = st.text(st.characters(codec="utf-8"), max_size=40)
KEYS = st.text(st.characters(codec="utf-8"), max_size=30)
TIMES = st.integers(0, 2**32 - 1).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))
TAGS = st.integers(0, 2**63 - 1)
CHANNELS = st.integers(1, 65_535)


DECIMALS = st.builds(
    lambda digits, scale: Decimal(digits).scaleb(-scale), st.integers(-(2**31), 2**31 - 1), st.integers(0, 255)
)


def tables(floats: st.SearchStrategy[float], raw: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    leaves = st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**63 - 1), floats, TEXT, raw, TIMES, DECIMALS)
    values = st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=12
    )
    return st.dictionaries(KEYS, values, max_size=6)


OURS = tables(st.floats(allow_nan=False), st.binary(max_size=40))
# pamqp writes floats with 32 bits, and bytes only from a bytearray.
PAMQPS = tables(st.floats(allow_nan=False, width=32), st.binary(max_size=40).map(bytearray))
SHORT = st.none() | TEXT
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "content_type": SHORT,
    "content_encoding": SHORT,
    "headers": st.none() | PAMQPS,
    "delivery_mode": st.sampled_from([None, 1, 2]),
    "priority": st.none() | st.integers(0, 255),
    "correlation_id": SHORT,
    "reply_to": SHORT,
    "expiration": SHORT,
    "message_id": SHORT,
    "timestamp": st.none() | TIMES,
    "type": SHORT,
    "user_id": SHORT,
    "app_id": SHORT,
}
PAMQPS_NAMES = {"type": "message_type"}
PROPERTIES = st.fixed_dictionaries(FIELDS)


@settings(deadline=None)  # the machine may be busy
@given(OURS)
def test_pamqp_reads_our_tables(table: dict[str, Any]) -> None:
    data = encode_table(table)
    assert decode.field_table(data) == (len(data), table)


@settings(deadline=None)  # the machine may be busy
@given(PAMQPS)
def test_we_read_pamqps_tables(table: dict[str, Any]) -> None:
    data = encode.field_table(table)
    assert decode_table(data, 0, len(data)) == (table, len(data))


@settings(deadline=None)  # the machine may be busy
@given(OURS)
def test_we_read_our_own_tables(table: dict[str, Any]) -> None:
    data = b"before" + encode_table(table) + b"behind"
    assert decode_table(data, 6, len(data)) == (table, len(data) - 6)


@settings(deadline=None)  # the machine may be busy
@given(PROPERTIES)
def test_pamqp_reads_our_properties(fields: dict[str, Any]) -> None:
    data = frames.content(7, encode_properties(Properties(**fields)), b"", frame_max=131_072)
    consumed, channel, theirs = frame.unmarshal(data)
    assert (consumed, channel, theirs.body_size) == (len(data), 7, 0)
    assert {name: getattr(theirs.properties, PAMQPS_NAMES.get(name, name)) for name in FIELDS} == fields


@settings(deadline=None)  # the machine may be busy
@given(PROPERTIES)
def test_we_read_pamqps_properties(fields: dict[str, Any]) -> None:
    theirs = commands.Basic.Properties(**{PAMQPS_NAMES.get(name, name): value for name, value in fields.items()})
    data = frame.marshal(header.ContentHeader(0, 5, theirs), 1)
    ours = decode_properties(data[7 + 12 : -1])
    # pamqp leaves out what is empty; an empty text and no text are two things to us and one to it.
    assert {name: getattr(ours, name) or None for name in FIELDS} == {
        name: value or None for name, value in fields.items()
    }


@settings(deadline=None)  # the machine may be busy
@given(CHANNELS, KEYS, KEYS, st.booleans())
def test_pamqp_reads_our_publish(channel: int, exchange: str, key: str, mandatory: bool) -> None:
    data = frames.publish_method(channel, exchange, key, mandatory)
    consumed, number, method = frame.unmarshal(data)
    assert isinstance(method, commands.Basic.Publish)
    assert (consumed, number) == (len(data), channel)
    assert dict(method) == {
        "ticket": 0, "exchange": exchange, "routing_key": key, "mandatory": mandatory, "immediate": False
    }  # fmt: skip


@settings(deadline=None)  # the machine may be busy
@given(CHANNELS, TAGS, st.booleans(), st.booleans())
def test_our_acks_are_pamqps_to_the_byte(channel: int, tag: int, multiple: bool, requeue: bool) -> None:
    assert frames.ack(channel, tag, multiple=multiple) == frame.marshal(commands.Basic.Ack(tag, multiple), channel)
    assert frames.nack(channel, tag, multiple=multiple, requeue=requeue) == frame.marshal(
        commands.Basic.Nack(tag, multiple, requeue), channel
    )


@settings(deadline=None)  # the machine may be busy
@given(st.integers(0, 2000).map(lambda size: (bytes(range(250)) * 8)[:size]), st.integers(64, 700))
def test_pamqp_reads_our_content(body: bytes, frame_max: int) -> None:
    data = frames.content(3, encode_properties(Properties(message_id="m")), body, frame_max)
    consumed, channel, start = frame.unmarshal(data)
    assert (channel, start.body_size, start.properties.message_id) == (3, len(body), "m")
    rest, found = data[consumed:], b""
    while rest:
        consumed, channel, piece = frame.unmarshal(rest)
        assert channel == 3
        assert 8 < consumed <= frame_max
        rest, found = rest[consumed:], found + piece.value
    assert found == body


@settings(deadline=None)  # the machine may be busy
@given(st.binary(max_size=300))
def test_bytes_that_are_no_table_are_one_error(data: bytes) -> None:
    try:
        _, stop = decode_table(data, 0, len(data))
    except ProtocolViolation:
        return
    assert stop <= len(data)


@settings(deadline=None)  # the machine may be busy
@given(st.binary(max_size=300))
def test_bytes_that_are_no_properties_are_one_error(data: bytes) -> None:
    try:
        properties = decode_properties(data)
    except ProtocolViolation:
        return
    assert decode_properties(encode_properties(properties)) == properties or "nan" in repr(properties)


@settings(deadline=None)  # the machine may be busy
@given(OURS, st.data())
def test_a_damaged_table_is_one_error_or_another_table(table: dict[str, Any], data: st.DataObject) -> None:
    good = bytearray(encode_table(table))
    for _ in range(data.draw(st.integers(1, 4))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(good[: data.draw(st.integers(0, len(good)))])
    try:
        _, stop = decode_table(cut, 0, len(cut))
    except ProtocolViolation:
        return
    assert stop <= len(cut)


@pytest.mark.parametrize("table", [{"k": float("inf")}, {"k": -0.0}])
def test_odd_floats_are_floats(table: dict[str, Any]) -> None:
    assert decode.field_table(encode_table(table))[1] == table
