"""A dead letter as a value: which request it was, where it is kept, why and when it died.

Reads what a worker wrote into its copy, and what the broker writes into the messages that it gives up itself; either
may be absent. Pure.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from modelmq import bundles
from modelmq.amqp import Delivery, Properties
from modelmq.amqp.properties import encode_properties
from modelmq.bundles import BUNDLE, RequestPart
from modelmq.errors import BrokerError, InvalidRequest
from modelmq.messages import (
    ATTEMPTS_HEADER,
    DEADLINE_HEADER,
    DIED_AT_HEADER,
    ERROR_HEADER,
    REASON_HEADER,
    parse_routing_key,
)
from modelmq.metadata import MODEL_NAME
from modelmq.retry_ladder import QUEUES as RETRY_QUEUES
from modelmq.topology_names import EXPIRED_QUEUE, UNROUTED_QUEUE, dead_letter_queue

EXPIRED, UNROUTED = "@expired", "@unrouted"
"""The places beside those of models, in words that can be no model's name."""
REPLAYS_HEADER = "replays"
"""How often an operator sent the request on its way again."""
UNKNOWN = "unknown"

_QUEUES = {EXPIRED: EXPIRED_QUEUE, UNROUTED: UNROUTED_QUEUE}
_OF_A_MODEL = dead_letter_queue("")
_COUNTED_BY_THE_BROKER = frozenset({"x-delivery-count", "x-acquired-count"})
"""What changes with each look at a letter, so it is no part of which letter it is."""
_DIGEST_LETTERS = 12


class Letter(msgspec.Struct, frozen=True, kw_only=True):
    """One dead letter without its body. Times are Unix milliseconds; None and empty mean that nobody told."""

    id: str
    """`<place>:<digest>`; the same at each look, and of no other letter."""
    place: str
    """A model's name, `@expired` or `@unrouted`."""
    routing_key: str
    reason: str
    error: str = ""
    attempts: int | None = None
    died_at_ms: int | None = None
    deadline_ms: int | None = None
    """Of a bundle the first that passes."""
    requests: int = 1
    """Of a bundle more than one."""
    request_id: str = ""
    content_type: str = ""
    body_bytes: int = 0
    replays: int = 0


class Reader:
    """Makes letters of one place's deliveries, in their order: equal ones are told apart by counting."""

    def __init__(self, place: str) -> None:
        self._place = place
        self._seen: dict[str, int] = {}

    def read(self, delivery: Delivery) -> Letter:
        """Never raises: what cannot be read is a letter too."""
        digest = digest_of(delivery)
        count = self._seen[digest] = self._seen.get(digest, 0) + 1
        name = f"{self._place}:{digest}" + (f"-{count}" if count > 1 else "")
        return _letter(delivery, self._place, name)


def queue_of(place: str) -> str:
    """The queue that a place stands for."""
    return _QUEUES.get(place) or dead_letter_queue(place)


def place_of(queue: str) -> str | None:
    """The inverse; None for a queue that holds no dead letters."""
    for place, name in _QUEUES.items():
        if queue == name:
            return place
    return queue.removeprefix(_OF_A_MODEL) if queue.startswith(_OF_A_MODEL) else None


def is_place(text: str) -> bool:
    """Whether a user's word can name a place at all."""
    return text in _QUEUES or MODEL_NAME.match(text) is not None


def digest_of(delivery: Delivery) -> str:
    """Of what the letter is: key, properties and body, without what the broker counts."""
    digest = hashlib.sha256(delivery.routing_key.encode("utf-8", "surrogateescape") + b"\0")
    try:
        properties = delivery.properties
        headers = {k: v for k, v in (properties.headers or {}).items() if k not in _COUNTED_BY_THE_BROKER}
        digest.update(encode_properties(msgspec.structs.replace(properties, headers=_sorted(headers) or None)))
    except (BrokerError, ValueError, TypeError):
        digest.update(b"unreadable")
    digest.update(b"\0%d\0" % delivery.body_size)
    digest.update(delivery.body)
    return digest.hexdigest()[:_DIGEST_LETTERS]


def _sorted(value: Any) -> Any:
    """Tables in the order of their names, as the broker sorts them when it adds a count."""
    if isinstance(value, dict):
        return {name: _sorted(value[name]) for name in sorted(value)}
    return [_sorted(each) for each in value] if isinstance(value, list) else value


def parts_of(delivery: Delivery) -> tuple[RequestPart, ...]:
    """The requests of a bundle; none of any other letter, or of a bundle that cannot be read."""
    try:
        if delivery.properties.content_type != BUNDLE:
            return ()
        return tuple(bundles.decode_requests(delivery.body))
    except (BrokerError, InvalidRequest):
        return ()


def deadline_of(headers: Mapping[str, Any] | None) -> int | None:
    """The time a request's headers set, where they do."""
    value = (headers or {}).get(DEADLINE_HEADER)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 2**63:
        return None
    return int(value)


def _letter(delivery: Delivery, place: str, name: str) -> Letter:
    try:
        properties = delivery.properties
    except BrokerError as error:
        return Letter(
            id=name,
            place=place,
            routing_key=delivery.routing_key,
            reason="unreadable",
            error=error.message,
            body_bytes=delivery.body_size,
        )
    headers = properties.headers or {}
    reason, died_at_ms = _death(headers, place)
    by_worker = not _deaths(headers)
    parts = parts_of(delivery)
    return Letter(
        id=name,
        place=place,
        routing_key=delivery.routing_key,
        reason=reason,
        error=str(headers.get(ERROR_HEADER, "")) if by_worker else "",
        attempts=_count(headers.get(ATTEMPTS_HEADER)) if by_worker else None,
        died_at_ms=died_at_ms,
        deadline_ms=min(part.deadline_ms for part in parts) if parts else deadline_of(headers),
        requests=len(parts) or 1,
        request_id=_request_id(properties, parts),
        content_type=properties.content_type or "",
        body_bytes=delivery.body_size,
        replays=_count(headers.get(REPLAYS_HEADER)) or 0,
    )


def _death(headers: Mapping[str, Any], place: str) -> tuple[str, int | None]:
    """Why and when: the broker's last word where it had one, for a caller cannot have written that; else a worker's."""
    for death in _deaths(headers):
        time = death.get("time")
        died_at_ms = int(time.timestamp() * 1000) if isinstance(time, datetime) else None
        return str(death.get("reason", UNKNOWN)), died_at_ms
    reason = headers.get(REASON_HEADER)
    if not isinstance(reason, str) or not reason:
        reason = "unrouted" if place == UNROUTED else UNKNOWN
    return reason, _count(headers.get(DIED_AT_HEADER))


def _deaths(headers: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The broker's own record of them, the last first; the end of a delay before a retry is none."""
    deaths = headers.get("x-death")
    told = [each for each in deaths if isinstance(each, dict)] if isinstance(deaths, list) else []
    return [each for each in told if not str(each.get("queue", "")).startswith(RETRY_QUEUES)]


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _request_id(properties: Properties, parts: tuple[RequestPart, ...]) -> str:
    if parts:
        first = parts[0].message_id or parts[0].correlation_id
        return first if len(parts) == 1 else f"{first} and {len(parts) - 1} more"
    return properties.message_id or properties.correlation_id or ""


def model_asked(routing_key: str) -> str:
    """The model, or the alias, that a key asks for; the key itself where it is of another form."""
    route = parse_routing_key(routing_key)
    return route.base if route else routing_key
