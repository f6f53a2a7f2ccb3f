"""The public message contract: names, headers and addresses that any AMQP client in any language may use.

Requests go to `ml-model-exchange` with routing key `<model>[.<version>][.bulk]`; replies go to the request's
`reply_to` with its `correlation_id`. Pure: knows neither sockets nor clocks.
"""

from __future__ import annotations

from collections.abc import Mapping
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
RETRIES_HEADER = "retries"
"""On a request that its model put off: how often it has."""
RETRY_HISTORY_HEADER = "retry-history"
"""The same, told one by one, the last of them only: tables of `at`, `delay_ms` and `error`."""
REASON_HEADER = "reason"
"""With `attempts`, `error` and `died-at` on the dead letters that a worker writes."""
ERROR_HEADER = "error"
DIED_AT_HEADER = "died-at"
"""Unix time in milliseconds."""
ROUTING_HEADERS = frozenset({"CC", "BCC"})
"""RabbitMQ reads them as more routing keys, so a copy that kept them would go where its publisher did not send it."""

HELLO_TYPE = "hello"
"""AMQP `type` property of control messages and of the workers' answers to them."""
CANCEL_TYPE = "cancel"

DIRECT_REPLY_TO = "amq.rabbitmq.reply-to"
GATEWAY_QUEUES = "ml-gateway."
"""How the names of the gateways' own reply queues begin."""

ReplyMode = Literal["direct", "queue"]
"""Whether replies go to the broker's direct addresses, or to queues bound to the reply exchange by their names."""


class ReplyPath(NamedTuple):
    """How replies reach who asked: published to `exchange` with the address as the key."""

    exchange: str
    prefixes: tuple[str, ...]
    """Addresses a worker may answer to; anything else could inject into somebody's queue. All end with who asked."""


REPLY_PATHS: Mapping[ReplyMode, ReplyPath] = {
    "direct": ReplyPath(DEFAULT_EXCHANGE, (f"{DIRECT_REPLY_TO}.", "amq.gen-")),
    "queue": ReplyPath(REPLY_EXCHANGE, (GATEWAY_QUEUES, "amq.gen-")),
}

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
