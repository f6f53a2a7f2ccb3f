from __future__ import annotations

import pytest

from modelmq.errors import InvalidRequest
from modelmq.worker import reply_address

DIRECT = "amq.rabbitmq.reply-to.g1h3Hm1vZGVsbXFAbG9jYWxob3N0AAAKHAAAAABlCqE=.pHIpGuHnOMjoAbPQX6IpbQ=="


@pytest.mark.parametrize("address", ["", None, DIRECT, "amq.gen-JzTY20BRgKO-HjmUJj0wLg"])
def test_the_brokers_own_addresses_and_none_are_allowed(address: str | None) -> None:
    assert reply_address.checked(address) == (address or "")


@pytest.mark.parametrize(
    "address",
    ["ml-model.digits.interactive", "amq.rabbitmq.reply-to", "amq.rabbitmq.reply-to.", "amq.rabbitmq.reply-to.x",
     "amq.rabbitmq.reply-to.a b.c", "amq.rabbitmq.reply-to.g1h.k\n", "amq.gen-" + "x" * 255, "orders"],
)  # fmt: skip
def test_all_others_are_refused(address: str) -> None:
    with pytest.raises(InvalidRequest, match="reply_to"):
        reply_address.checked(address)


def test_a_configured_prefix_is_allowed_and_may_be_durable() -> None:
    assert reply_address.checked("results.a", ("results.",)) == "results.a"
    assert reply_address.may_be_durable("results.a")
    assert not reply_address.may_be_durable(DIRECT)
