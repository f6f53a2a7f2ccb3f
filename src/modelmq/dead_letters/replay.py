"""What a letter's request looks like on its way again: as it was first sent, without all that no longer holds.

Nobody waits for its answer any more, so it has no reply address; its deadline is kept or reset; what the broker and
the worker wrote about its death stays behind, but for a count. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from modelmq.amqp import Delivery, Properties, frames
from modelmq.amqp.properties import encode_properties
from modelmq.bundles import BUNDLE, RequestPart
from modelmq.dead_letters.letter import REPLAYS_HEADER, deadline_of, parts_of
from modelmq.errors import BrokerError
from modelmq.messages import (
    ATTEMPTS_HEADER,
    DEADLINE_HEADER,
    DIED_AT_HEADER,
    ERROR_HEADER,
    REASON_HEADER,
    RETRIES_HEADER,
    ROUTING_HEADERS,
)
from modelmq.retry_ladder import RUNG_HEADER

_BROKERS_OWN = "x-"
_OF_THE_DEATH = frozenset({REASON_HEADER, ATTEMPTS_HEADER, ERROR_HEADER, DIED_AT_HEADER, RETRIES_HEADER, RUNG_HEADER})
"""Its retries are counted anew, their history stays."""
_PERSISTENT = 2
_LONGEST_TEXT = 255


class Deadline(msgspec.Struct, frozen=True):
    """Which deadline the request gets: that which it had, its model's own timeout from when a worker takes it, or
    so many seconds from now.
    """

    keep: bool = True
    within_s: float | None = None


KEEP = Deadline()
RESET = Deadline(keep=False)
"""To the model's own timeout."""


class Again(NamedTuple):
    """The arguments of a publish, beside the exchange."""

    routing_key: str
    properties: Properties
    body: bytes


class Refused(NamedTuple):
    """Why a letter cannot be sent again, in words that follow "because"."""

    why: str


def again(delivery: Delivery, deadline: Deadline, now_ms: int, frame_max: int) -> tuple[Again, ...] | Refused:
    """The request, or each request of a bundle as a message of its own, over a connection with frames so large."""
    parts = parts_of(delivery)
    why = _unfit(delivery, parts) or _too_late(delivery, parts, deadline, now_ms)
    if why:
        return Refused(why)
    made = [_part_again(delivery, part, deadline, now_ms) for part in parts] or [_again(delivery, deadline, now_ms)]
    fits = all(_fits(each.properties, frame_max) for each in made)
    return tuple(made) if fits else Refused("its properties no longer fit into a frame")


def _again(delivery: Delivery, deadline: Deadline, now_ms: int) -> Again:
    headers = _headers(delivery.properties.headers or {}, deadline, now_ms)
    return Again(delivery.routing_key, _properties(delivery.properties, headers), delivery.body)


def _fits(properties: Properties, frame_max: int) -> bool:
    """Written again, numbers may take more bytes than as they came."""
    try:
        frames.content(0, encode_properties(properties), b"", frame_max)
    except ValueError:
        return False
    return True


def _unfit(delivery: Delivery, parts: Sequence[RequestPart]) -> str:
    """Why no message can be made of it; empty when one can."""
    try:
        properties = delivery.properties
    except BrokerError as error:
        return f"its properties cannot be read: {error.message.rstrip('.')}"
    if delivery.body_size != len(delivery.body):
        return f"its body of {delivery.body_size} bytes is larger than any worker takes"
    if properties.content_type == BUNDLE and not parts:
        return "its bundle of requests cannot be read"
    if any(_too_long(part) for part in parts):
        return "a request of its bundle has an id of more than 255 bytes"
    return ""


def _too_late(delivery: Delivery, parts: Sequence[RequestPart], deadline: Deadline, now_ms: int) -> str:
    if not deadline.keep:
        return ""
    known: list[int | None] = [part.deadline_ms for part in parts] or [deadline_of(delivery.properties.headers)]
    if any(each is not None and each <= now_ms for each in known):
        return "its deadline has passed, so it would only expire again: give it another with --deadline"
    return ""


def _part_again(delivery: Delivery, part: RequestPart, deadline: Deadline, now_ms: int) -> Again:
    told = {k: v for k, v in (delivery.properties.headers or {}).items() if k == REPLAYS_HEADER}
    headers = _headers({**(part.headers or {}), **told, DEADLINE_HEADER: part.deadline_ms}, deadline, now_ms)
    properties = Properties(
        content_type=part.content_type,
        headers=headers,
        delivery_mode=_PERSISTENT,
        correlation_id=part.correlation_id,
        message_id=part.message_id,
    )
    return Again(delivery.routing_key, properties, part.body)


def _properties(before: Properties, headers: dict[str, Any]) -> Properties:
    """Without reply_to and expiration, which no longer hold, and user_id, which the broker would refuse from us."""
    return Properties(
        content_type=before.content_type,
        content_encoding=before.content_encoding,
        headers=headers,
        delivery_mode=_PERSISTENT,
        correlation_id=before.correlation_id,
        message_id=before.message_id,
        timestamp=before.timestamp,
        type=before.type,
        app_id=before.app_id,
    )


def _headers(before: Mapping[str, Any], deadline: Deadline, now_ms: int) -> dict[str, Any]:
    kept = {
        name: value
        for name, value in before.items()
        if not name.startswith(_BROKERS_OWN) and name not in _OF_THE_DEATH and name not in ROUTING_HEADERS
    }
    replays = kept.get(REPLAYS_HEADER, 0)
    kept[REPLAYS_HEADER] = replays + 1 if isinstance(replays, int) and 0 <= replays < 2**31 else 1
    if not deadline.keep:
        kept.pop(DEADLINE_HEADER, None)
        if deadline.within_s is not None:
            kept[DEADLINE_HEADER] = now_ms + int(deadline.within_s * 1000)
    return kept


def _too_long(part: RequestPart) -> bool:
    texts = (part.correlation_id, part.message_id, part.content_type)
    return any(len(text.encode("utf-8", "surrogateescape")) > _LONGEST_TEXT for text in texts)
