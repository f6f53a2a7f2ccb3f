from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelmq.messages import LANES, Route, parse_routing_key, reply_address_allowed, routing_key

bases = st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True)
versions = st.none() | st.from_regex(r"[0-9]{1,18}", fullmatch=True)


@given(bases, versions, st.sampled_from(LANES))
def test_a_routing_key_is_read_back_as_it_was_written(base: str, version: str | None, lane) -> None:
    assert parse_routing_key(routing_key(base, version, lane)) == Route(base, version, lane)


@pytest.mark.parametrize(
    "key", ["", ".", "a.b", "a.1.2", "a.1.bulk.x", "a/b", "a b", "a.bulk.1", "x" * 65, "a.", ".1", "a.1\n", "a\n"]
)
def test_a_foreign_routing_key_is_none(key: str) -> None:
    assert parse_routing_key(key) is None


def test_bulk_alone_is_a_model_of_that_name() -> None:
    assert parse_routing_key("bulk") == Route("bulk", None, "interactive")


@pytest.mark.parametrize("address", ["amq.rabbitmq.reply-to.g1h2", "amq.gen-abc"])
def test_addresses_only_their_owner_reads_are_answered(address: str) -> None:
    assert reply_address_allowed(address)


@pytest.mark.parametrize(
    "address",
    ["", "ml-model.digits.interactive", "amq.rabbitmq.reply-to", "amq.gen", "replies.me", "amq.gen-" + "x" * 255],
)
def test_other_addresses_are_refused(address: str) -> None:
    assert not reply_address_allowed(address)


def test_a_configured_prefix_is_allowed() -> None:
    assert reply_address_allowed("replies.me", ("replies.",))
