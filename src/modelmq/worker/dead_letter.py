"""The copy of a request that a worker puts into the dead-letter queue: everything it was, and why it ended here.

Pure: builds what the lane publishes, confirmed, before it answers and acks.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from modelmq.amqp import Properties
from modelmq.amqp.tables import encode_table
from modelmq.messages import (
    ATTEMPTS_HEADER,
    DEAD_LETTER_EXCHANGE,
    DIED_AT_HEADER,
    ERROR_HEADER,
    REASON_HEADER,
    ROUTING_HEADERS,
)
from modelmq.worker.item import Message
from modelmq.worker.outcome import Answer

DROPPED_HEADER = "headers-dropped"
"""How many headers the request had that were too large together to be kept."""
REASON = "model_process_died"
_LONGEST_ERROR = 1000
_BROKERS_OWN = "x-"
_LARGEST_HEADERS = 65_536
"""Bytes of the request's headers that are kept. They came in one frame, and must leave in one with what is added."""


class Letter(NamedTuple):
    """The arguments of a publish."""

    exchange: str
    routing_key: str
    properties: Properties
    body: bytes


def copy_of(delivery: Message, answer: Answer, now_s: float) -> Letter:
    """The request as it came, persistent and without expiration, with reason, attempts, error and time in its headers.

    `now_s` is Unix time.
    """
    headers = kept_headers(delivery) | {
        REASON_HEADER: answer.reason or REASON,
        ATTEMPTS_HEADER: answer.attempts,
        ERROR_HEADER: answer.error[:_LONGEST_ERROR],
        DIED_AT_HEADER: int(now_s * 1000),
    }
    return Letter(DEAD_LETTER_EXCHANGE, delivery.routing_key, kept_properties(delivery, headers), delivery.body)


def kept_headers(delivery: Message) -> dict[str, Any]:
    """Those of the request that a copy of it bears: all that its caller wrote, nothing that the broker did."""
    headers = delivery.properties.headers or {}
    kept = {
        name: value
        for name, value in headers.items()
        if not name.startswith(_BROKERS_OWN) and name not in ROUTING_HEADERS
    }
    return kept if len(encode_table(kept)) <= _LARGEST_HEADERS else {DROPPED_HEADER: len(kept)}


def kept_properties(delivery: Message, headers: dict[str, Any]) -> Properties:
    """Those of the request that a copy of it bears: persistent, and without expiration."""
    before = delivery.properties
    return Properties(
        content_type=before.content_type,
        content_encoding=before.content_encoding,
        headers=headers,
        delivery_mode=2,
        correlation_id=before.correlation_id,
        reply_to=before.reply_to,
        message_id=before.message_id,
        timestamp=before.timestamp,
        type=before.type,
        app_id=before.app_id,
    )
