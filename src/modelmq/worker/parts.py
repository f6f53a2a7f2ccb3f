"""A delivery taken apart into the requests it carries: itself, or the parts of a bundle.

Between the channel and intake, which sees no difference: a part has the properties that a message of its own would
have had. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from modelmq import bundles
from modelmq.amqp import Delivery, Properties
from modelmq.bundles import BUNDLE, RequestPart
from modelmq.errors import BrokerError, InvalidRequest
from modelmq.messages import DEADLINE_HEADER
from modelmq.worker.item import Message

_PERSISTENT = 2
_BROKERS_OWN = "x-"
_LONGEST = 255
"""Bytes of a short text in AMQP: what a part says must fit into a message of its own, as its dead letter is one."""


class Part(msgspec.Struct, eq=False):
    """One request of a bundle. Its delivery tag is the bundle's: the broker takes back all of it or nothing."""

    delivery_tag: int
    redelivered: bool
    routing_key: str
    properties: Properties
    body: bytes
    body_size: int


def messages_of(delivery: Delivery) -> Sequence[Message]:
    """The requests of a delivery. A bundle that cannot be read stays whole, and intake refuses it."""
    try:
        properties = delivery.properties
        if properties.content_type != BUNDLE:
            return (delivery,)
        parts = bundles.decode_requests(delivery.body)
        brokers_own = {k: v for k, v in (properties.headers or {}).items() if k.startswith(_BROKERS_OWN)}
        return [_part(delivery, part, properties.reply_to, brokers_own) for part in parts]
    except (BrokerError, InvalidRequest):
        return (delivery,)


def _part(delivery: Delivery, part: RequestPart, reply_to: str | None, brokers_own: dict[str, Any]) -> Part:
    headers: dict[str, Any] = {DEADLINE_HEADER: part.deadline_ms}
    if part.headers:
        headers = part.headers | headers
    if brokers_own:
        headers |= brokers_own
    for text in (part.correlation_id, part.message_id, part.content_type):
        if len(text) > _LONGEST or not (text.isascii() or len(text.encode()) <= _LONGEST):
            raise InvalidRequest("A request of the bundle has an id of more than 255 bytes.")
    properties = Properties(
        content_type=part.content_type,
        headers=headers,
        delivery_mode=_PERSISTENT,
        correlation_id=part.correlation_id,
        reply_to=reply_to,
        message_id=part.message_id,
    )
    body = part.body
    return Part(delivery.delivery_tag, delivery.redelivered, delivery.routing_key, properties, body, len(body))
