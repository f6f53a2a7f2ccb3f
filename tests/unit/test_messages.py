from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelmq.messages import LANES, REPLY_PATHS, Route, parse_routing_key, routing_key

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


def test_each_reply_mode_has_its_own_exchange_and_no_address_of_the_other() -> None:
    direct, queue = REPLY_PATHS["direct"], REPLY_PATHS["queue"]
    assert (direct.exchange, queue.exchange) == ("", "ml-reply-exchange")
    assert set(direct.prefixes) & set(queue.prefixes) == {"amq.gen-"}
