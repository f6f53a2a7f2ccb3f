from __future__ import annotations

import base64

import pytest

from modelmq.errors import InvalidRequest
from modelmq.messages import ReplyMode
from modelmq.worker import reply_address
from modelmq.worker.reply_address import ReplyRules

DIRECT = "amq.rabbitmq.reply-to.g1h3Hm1vZGVsbXFAbG9jYWxob3N0AAAKHAAAAABlCqE=.pHIpGuHnOMjoAbPQX6IpbQ=="


NAMED = "ml-gateway.host-1.0f"
BROKERS = "amq.gen-JzTY20BRgKO-HjmUJj0wLg"
DIRECTLY, TO_QUEUES = reply_address.rules_of("direct"), reply_address.rules_of("queue")
NEVER = ["ml-model.digits.interactive", "amq.rabbitmq.reply-to", "amq.rabbitmq.reply-to.", "amq.rabbitmq.reply-to.x",
         "amq.rabbitmq.reply-to.a b.c", "amq.rabbitmq.reply-to.g1h.k\n", "amq.gen-" + "x" * 255,
         "amq.gen-" + "é" * 124, "ml-gateway", "orders"]  # fmt: skip


@pytest.mark.parametrize(("rules", "own"), [(DIRECTLY, DIRECT), (TO_QUEUES, NAMED)])
def test_the_modes_own_addresses_and_none_are_allowed(rules: ReplyRules, own: str) -> None:
    for address in ("", None, own, BROKERS):
        assert rules.checked(address) == (address or "")
        assert not rules.may_be_durable(address or own)


@pytest.mark.parametrize(("rules", "foreign"), [(DIRECTLY, NAMED), (TO_QUEUES, DIRECT)])
def test_all_others_are_refused(rules: ReplyRules, foreign: str) -> None:
    for address in (*NEVER, foreign):
        with pytest.raises(InvalidRequest, match="reply_to"):
            rules.checked(address)


def test_a_refusal_says_what_the_mode_asks_for() -> None:
    with pytest.raises(InvalidRequest, match="use direct reply-to, a server-named queue"):
        DIRECTLY.checked("orders")
    with pytest.raises(
        InvalidRequest, match=r"topology\.reply_mode is queue: use a server-named queue bound to ml-reply-"
    ):
        TO_QUEUES.checked(DIRECT)


def test_replies_take_the_exchange_of_the_mode() -> None:
    assert (DIRECTLY.exchange, TO_QUEUES.exchange) == ("", "ml-reply-exchange")


@pytest.mark.parametrize("mode", ["direct", "queue"])
def test_a_configured_prefix_is_allowed_and_may_be_durable(mode: ReplyMode) -> None:
    rules = reply_address.rules_of(mode, ("results.",))
    assert rules.checked("results.a") == "results.a"
    assert rules.may_be_durable("results.a")


def direct(raw: bytes) -> str:
    return f"amq.rabbitmq.reply-to.{base64.b64encode(raw).decode()}.pHIpGuHnOMjoAbPQX6IpbQ=="


@pytest.mark.parametrize(
    ("address", "risk"),
    [
        ("", ""),
        ("amq.gen-JzTY20BRgKO-HjmUJj0wLg", ""),
        ("results.a", ""),
        (direct(b"\x83Xw\x07reply@6\x00\x00\x02\x00\x00\x00\x00\x00\x6b\x06\x60\xee"), "reply@6"),
        (direct(b"\x83Xv\x00\x07reply@6\x00\x00\x7f\xff\x00\x00\x1f\xff\xff\xff\xff\xff"), "reply@6"),
    ],
)
def test_a_direct_address_is_as_good_as_its_node(address: str, risk: str) -> None:
    assert reply_address.risk(address) == risk


@pytest.mark.parametrize(
    "address",
    [
        DIRECT.replace("E=.", "E."),
        DIRECT.replace(".g1h3", ".g1_h3"),
        direct(b""),
        direct(b"\x83Xv"),
        direct(b"\x82Xv\x00\x01a" + b"\x00" * 12),
        direct(b"\x83Xv\x00\x01a" + b"\x00" * 11),
        direct(b"\x83Xv\x00\x01a" + b"\x00" * 13),
        direct(b"\x83Xv\x00\x01a\x00\x00\x80\x00" + b"\x00" * 8),
        direct(b"\x83Xv\x00\x01a\x00\x00\x00\x00\x00\x00\x20\x00" + b"\x00" * 4),
        direct(b"\x83Xv\xff\xffa" + b"\x00" * 12),
    ],
)
def test_a_direct_address_of_another_form_is_as_good_as_itself(address: str) -> None:
    assert reply_address.risk(address) == address
