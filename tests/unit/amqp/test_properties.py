from __future__ import annotations

import struct
from datetime import UTC, datetime
from typing import Any

import pytest

from modelmq.amqp.properties import Properties, decode_properties, encode_properties
from modelmq.errors import ProtocolViolation

ALL = Properties(
    content_type="application/json",
    content_encoding="gzip",
    headers={"deadline": 1, "status": "failed"},
    delivery_mode=2,
    priority=9,
    correlation_id="c",
    reply_to="amq.rabbitmq.reply-to.x",
    expiration="60000",
    message_id="m",
    timestamp=datetime(2024, 1, 1, tzinfo=UTC),
    type="hello",
    user_id="u",
    app_id="a",
)


def test_no_property_is_two_bytes() -> None:
    assert encode_properties(Properties()) == b"\x00\x00"
    assert decode_properties(b"\x00\x00") == Properties()


def test_all_properties_are_read_again() -> None:
    assert decode_properties(encode_properties(ALL)) == ALL


@pytest.mark.parametrize("name", Properties.__struct_fields__)
def test_each_property_alone_is_read_again(name: str) -> None:
    alone = Properties(**{name: getattr(ALL, name)})
    assert decode_properties(encode_properties(alone)) == alone


def test_present_and_empty_is_not_absent() -> None:
    empty = Properties(content_type="", headers={}, delivery_mode=0, correlation_id="")
    assert decode_properties(encode_properties(empty)) == empty


def test_bytes_that_are_no_text_come_back_as_they_were() -> None:
    raw = struct.pack(">H", 1 << 10) + b"\x02\xff\xfe"
    assert encode_properties(decode_properties(raw)) == raw


def test_the_deprecated_cluster_id_is_read_and_dropped() -> None:
    assert decode_properties(struct.pack(">H", 1 << 2) + b"\x01x") == Properties()


@pytest.mark.parametrize(
    "wrong",
    [{"correlation_id": "x" * 256}, {"correlation_id": "ü" * 128}, {"priority": 256}, {"delivery_mode": -1},
     {"headers": {"k": 2**64}}, {"timestamp": datetime(1969, 1, 1, tzinfo=UTC)}, {"message_id": "\ud800"}],
)  # fmt: skip
def test_what_does_not_fit_is_a_value_error(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        encode_properties(Properties(**wrong))


@pytest.mark.parametrize(
    "data",
    [b"", b"\x80", b"\x80\x00", b"\x80\x00\x05ab", b"\x00\x01", b"\x00\x02", b"\x00\x00x", b"\x80\x00\x01aa",
     b"\x20\x00\xff\xff\xff\xff", b"\x10\x00", b"\x00\x40\x00", b"\x00\x40" + b"\xff" * 8],
)  # fmt: skip
def test_what_no_sender_may_write_is_a_violation(data: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        decode_properties(data)
