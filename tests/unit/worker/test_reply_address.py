from __future__ import annotations

import base64

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
