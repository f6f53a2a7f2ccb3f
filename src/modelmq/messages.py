"""The public message contract: names, headers and addresses that any AMQP client in any language may use.

Requests go to `ml-model-exchange` with routing key `<model>[.<version>][.bulk]`; replies go to the request's
`reply_to` with its `correlation_id`. Pure: knows neither sockets nor clocks.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from modelmq.metadata import MODEL_NAME, VERSION

MODEL_EXCHANGE = "ml-model-exchange"
CONTROL_EXCHANGE = "ml-control-exchange"
REPLY_EXCHANGE = "ml-reply-exchange"
DEAD_LETTER_EXCHANGE = "ml-dead-letter-exchange"
DEFAULT_EXCHANGE = ""

JSON = "application/json"
BINARY = "application/octet-stream"

DEADLINE_HEADER = "deadline"
"""Unix time in milliseconds after which nobody waits for the answer any more."""
STATUS_HEADER = "status"
"""On error replies only: the stable error code."""
ATTEMPTS_HEADER = "attempts"

HELLO_TYPE = "hello"
"""AMQP `type` property of control messages and of the workers' answers to them."""
CANCEL_TYPE = "cancel"

DIRECT_REPLY_TO = "amq.rabbitmq.reply-to"
REPLY_PREFIXES = ("amq.rabbitmq.reply-to.", "amq.gen-")
"""Addresses a worker may answer to; anything else could inject into somebody's queue."""

BODY_LIMIT_BYTES = 15_000_000

Lane = Literal["interactive", "bulk"]
LANES: tuple[Lane, Lane] = ("interactive", "bulk")


class Route(NamedTuple):
    """A routing key taken apart; `base` is the model's name or the alias its settings give it."""

    base: str
    version: str | None
    lane: Lane


def routing_key(base: str, version: str | None = None, lane: Lane = "interactive") -> str:
    """`<base>[.<version>][.bulk]`."""
    key = base if version is None else f"{base}.{version}"
    return f"{key}.bulk" if lane == "bulk" else key


def parse_routing_key(key: str) -> Route | None:
    """The inverse of `routing_key`; None when the key is not of that form."""
    base, *rest = key.split(".")
    lane: Lane = "interactive"
    if rest and rest[-1] == "bulk":
        lane = "bulk"
        rest.pop()
    if len(rest) > 1 or not MODEL_NAME.match(base):
        return None
    version = rest[0] if rest else None
    if version is not None and not VERSION.match(version):
        return None
    return Route(base, version, lane)


def reply_address_allowed(reply_to: str, extra_prefixes: tuple[str, ...] = ()) -> bool:
    """Whether a worker may publish to this address (see REPLY_PREFIXES)."""
    return len(reply_to.encode()) <= 255 and reply_to.startswith(REPLY_PREFIXES + extra_prefixes)
