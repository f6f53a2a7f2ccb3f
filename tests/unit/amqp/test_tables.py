from __future__ import annotations

import struct
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from modelmq.amqp.tables import MAX_DEPTH, decode_table, encode_table
from modelmq.errors import ProtocolViolation


def decoded(data: bytes) -> dict[str, Any]:
    table, stop = decode_table(data, 0, len(data))
    assert stop == len(data)
    return table


def sized(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def one(value: bytes) -> bytes:
    """A table with this value under the key k."""
    return sized(b"\x01k" + value)


def nested(depth: int, *, arrays: bool = False) -> bytes:
    value = b"V"
    for _ in range(depth):
        value = b"A" + sized(value) if arrays else b"F" + one(value)
    return one(value)


@pytest.mark.parametrize(
    "value",
    [0, -1, 2**63 - 1, -(2**63), True, False, None, 1.5, "", "grüße", "x" * 70_000, "\udcff", b"", b"\xff\x00",
     datetime(2024, 2, 29, 12, 30, 5, tzinfo=UTC), Decimal("3.14"), Decimal(0),
    Decimal("-2147483.648"), [], [1, "a", [None, {"b": True}]],
     {}, {"a": {"b": {"c": [1]}}}],
)  # fmt: skip
def test_what_is_written_is_read_again(value: object) -> None:
    assert decoded(encode_table({"k": value, "last": 1})) == {"k": value, "last": 1}


@pytest.mark.parametrize(
    ("data", "value"),
    [(b"b\xff", -1), (b"B\xff", 255), (b"s\xff\xff", -1), (b"u\xff\xff", 65_535), (b"I" + b"\xff" * 4, -1),
     (b"i" + b"\xff" * 4, 2**32 - 1), (b"l" + b"\xff" * 8, -1), (b"L" + b"\xff" * 8, -1), (b"t\x02", True),
     (b"f\x3f\x80\x00\x00", 1.0), (b"D\x02\x00\x00\x01\x3a", Decimal("3.14")), (b"V", None)],
)  # fmt: skip
def test_every_type_of_the_dialect_is_read(data: bytes, value: object) -> None:
    table = decoded(one(data))
    assert table == {"k": value}
    assert type(table["k"]) is type(value)


def test_tuples_bytearrays_and_mappings_are_written_as_their_kin() -> None:
    assert decoded(encode_table({"k": (1, bytearray(b"x"))})) == {"k": [1, b"x"]}


@pytest.mark.parametrize(
    ("table", "error"),
    [({"k" * 256: 1}, ValueError), ({"k": 2**63}, ValueError), ({"k": object()}, TypeError), ({1: 1}, TypeError),
     ({"k": Decimal("NaN")}, ValueError), ({"k": Decimal(2**31)}, ValueError), ({"k": Decimal("1E3")}, ValueError),
     ({"k": datetime(1969, 1, 1, tzinfo=UTC)}, ValueError)],
)  # fmt: skip
def test_what_amqp_cannot_hold_is_refused(table: dict[Any, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        encode_table(table)


@pytest.mark.parametrize(
    "data",
    [b"", b"\x00\x00\x00", b"\x00\x00\x00\x01", b"\xff\xff\xff\xff", sized(b"\x05ab"), sized(b"\x01k"), one(b"?"),
     one(b"S\xff\xff\xff\xff"), one(b"S\x00\x00\x00\x09ab"), one(b"l\x00"), one(b"T\x00"), one(b"D\x00"), one(b"t"),
     one(b"A\x00\x00\x00\xff"), one(b"F\x00\x00\x00\x01"), one(b"A" + sized(b"S\x00\x00\x00\x05a")),
     one(b"F" + sized(b"\x01kl\x00")), one(b"T" + b"\xff" * 8)],
)  # fmt: skip
def test_lengths_that_lie_are_violations(data: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        decode_table(data, 0, len(data))


def test_no_value_reads_what_stands_behind_its_table() -> None:
    inner_too_short = one(b"F" + sized(b"\x01kl\x00")) + b"\x00" * 16
    with pytest.raises(ProtocolViolation):
        decode_table(inner_too_short, 0, len(inner_too_short) - 16)


@pytest.mark.parametrize("arrays", [False, True])
def test_nesting_is_bounded(arrays: bool) -> None:
    decoded(nested(MAX_DEPTH, arrays=arrays))
    for depth in (MAX_DEPTH + 1, 5_000):
        with pytest.raises(ProtocolViolation, match="nested"):
            decoded(nested(depth, arrays=arrays))


def test_a_table_of_many_keys_keeps_the_last_of_equal_ones() -> None:
    assert decoded(sized(b"\x01kt\x00\x01kt\x01")) == {"k": True}
