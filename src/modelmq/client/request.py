"""One request as a value: the message it becomes, and the error that each way of ending without a result is.

Between the caller and the connection. Pure: the asking side's half of the message contract.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any
from zlib import crc32

import msgspec

from modelmq.amqp import Delivery, Properties
from modelmq.bundles import BUNDLE, RequestPart
from modelmq.errors import (
    ChannelClosed,
    Expired,
    InvalidRequest,
    ModelFailed,
    NotFound,
    Overloaded,
    RequestError,
    TooLarge,
    Unavailable,
    request_error,
)
from modelmq.messages import (
    CANCEL_TYPE,
    DEADLINE_HEADER,
    JSON,
    STATUS_HEADER,
    Lane,
    routing_key,
)
from modelmq.metadata import MODEL_NAME, VERSION
from modelmq.protocol import error_message

RETRY_AFTER_S = 1.0
EXPIRATION_MARGIN_MS = 5_000
"""The broker drops a message this long after its deadline: the deadline rules, expiration only clears rubbish away."""
_LONGEST_EXPIRATION_MS = 10 * 365 * 86_400_000  # far below what the broker refuses
LARGEST_BODY_BYTES = 16 * 1024 * 1024
"""RabbitMQ 4.0 and later close the channel of whoever publishes more, with everything else on it."""
_PERSISTENT = 2
_NOT_FOUND = 404


class Request(msgspec.Struct, frozen=True):
    """A question to a model. `body` is sent as it is; `model` is its name or the routing key its settings give it."""

    model: str
    body: bytes
    deadline_unix_s: float
    version: str | None = None
    lane: Lane = "interactive"
    content_type: str = JSON
    message_id: str = ""
    """The request's name in logs; empty takes the correlation id."""
    headers: dict[str, Any] | None = None
    idempotent: bool = True
    """False: never sent a second time, because it may have run already when a connection is lost."""
    bundle_limit: int = 1
    """Requests that may share a message with it, as the model's workers said; 1: it travels alone."""


class Route(msgspec.Struct, frozen=True):
    """Where requests for a model go: the routing key, the queue it leads to, which of the connections takes them."""

    key: str
    queue: str
    """Not its name, but one for all keys that lead to it: a model's versions share a queue."""
    shard: int


@lru_cache(maxsize=4096)
def route(model: str, version: str | None, lane: Lane, shards: int) -> Route:
    """The same model takes the same connection in every process. Raises NotFound for what names no model."""
    if not MODEL_NAME.match(model):
        raise NotFound(f'"{model[:80]}" is no model\'s name: that has 1 to 64 letters, digits, - and _.')
    if version is not None and not VERSION.match(version):
        raise NotFound(f'"{version[:40]}" is no version of model {model}: that is a whole number.')
    return Route(routing_key(model, version, lane), routing_key(model, lane=lane), crc32(model.encode()) % shards)


def properties_of(request: Request, correlation_id: str, reply_to: str, now_unix_s: float) -> Properties:
    """The message's properties for a deadline that has not passed."""
    deadline_s = request.deadline_unix_s
    left_ms = max(0, int((deadline_s - now_unix_s) * 1000) + EXPIRATION_MARGIN_MS)
    deadline = {DEADLINE_HEADER: int(deadline_s * 1000)}
    return Properties(
        content_type=request.content_type,
        headers=deadline if request.headers is None else request.headers | deadline,
        delivery_mode=_PERSISTENT,
        correlation_id=correlation_id,
        reply_to=reply_to,
        expiration=str(min(left_ms, _LONGEST_EXPIRATION_MS)),
        message_id=request.message_id or correlation_id,
    )


def part_of(request: Request, correlation_id: str) -> RequestPart:
    """The same as part of a bundle."""
    return RequestPart(
        correlation_id=correlation_id,
        deadline_ms=int(request.deadline_unix_s * 1000),
        message_id=request.message_id or correlation_id,
        content_type=request.content_type,
        headers=request.headers,
        body=request.body,
    )


def bundle_properties(parts: Sequence[RequestPart], reply_to: str, now_unix_s: float) -> Properties:
    """The bundle's own: it outlives the last deadline of its parts, and is known by the first one's id."""
    left_ms = max(0, max(part.deadline_ms for part in parts) - int(now_unix_s * 1000) + EXPIRATION_MARGIN_MS)
    return Properties(
        content_type=BUNDLE,
        delivery_mode=_PERSISTENT,
        correlation_id=parts[0].correlation_id,
        reply_to=reply_to,
        expiration=str(min(left_ms, _LONGEST_EXPIRATION_MS)),
        message_id=parts[0].correlation_id,
    )


def cancel_of(correlation_id: str, deadline_unix_s: float) -> Properties:
    """The message that withdraws a request, but for the reply address, which is that of the request."""
    deadline = {DEADLINE_HEADER: int(deadline_unix_s * 1000)}
    return Properties(type=CANCEL_TYPE, correlation_id=correlation_id, headers=deadline)


def reply_error(properties: Properties, reply: Delivery) -> RequestError | None:
    """The error that a reply tells; None when it is a response."""
    if reply.body_size > len(reply.body):
        return ModelFailed(f"The reply has {reply.body_size} bytes, more than this client takes.")
    status = properties.headers.get(STATUS_HEADER) if properties.headers else None
    return None if status is None else error_told(str(status), reply.body)


def error_told(status: str, body: bytes) -> RequestError:
    """The error of a reply with this status."""
    return request_error(status, error_message(body))


def expired(request: Request) -> Expired:
    """Nothing came before the deadline."""
    return Expired(f"Model {request.model} gave no answer before the request's deadline; allow more time or ask later.")


def returned(request: Request) -> NotFound:
    """The broker knows no queue for it."""
    what = f"model {request.model}" if request.version is None else f"version {request.version} of {request.model}"
    return NotFound(f"No {what}: RabbitMQ has no queue for it. If it is new, run modelmq topology apply.")


def refused(request: Request) -> Overloaded:
    """The broker did not take it: its queue is full, as far as one can know who hears no workers' reports."""
    sentence = f"The queue of model {request.model} is full; the request was not accepted. Ask again later."
    return Overloaded(sentence, retry_after_s=RETRY_AFTER_S)


def not_taken(request: Request) -> Unavailable:
    """The broker did not take it, and its queue is not full."""
    sentence = f"RabbitMQ did not take the request for model {request.model}, and its queue is not full"
    return unavailable(f"{sentence}: the queue may have no leader")


def unconfirming(request: Request) -> Unavailable:
    """Its queue has confirmed nothing for a while."""
    return unavailable(f"RabbitMQ does not confirm requests for model {request.model}: its queue may have no leader")


def too_many(request: Request, limit: int) -> Overloaded:
    """This process waits for as many answers as it may."""
    sentence = f"{limit} requests wait for an answer already; one more for model {request.model} was not sent."
    return Overloaded(sentence, retry_after_s=RETRY_AFTER_S)


def too_large(request: Request) -> TooLarge:
    """No broker takes it; it would close the channel."""
    size = len(request.body)
    return TooLarge(f"The request for model {request.model} has {size} bytes; RabbitMQ takes {LARGEST_BODY_BYTES}.")


def unsendable(request: Request, error: ValueError | TypeError) -> InvalidRequest:
    """Its properties or headers are not what AMQP can carry."""
    return InvalidRequest(f"The request for model {request.model} cannot be made a message: {error}")


def unavailable(reason: str) -> Unavailable:
    """Nobody can be asked now; `reason` is a sentence without its stop."""
    return Unavailable(f"{reason}; ask again later.", retry_after_s=RETRY_AFTER_S)


def unanswerable(error: ChannelClosed) -> str:
    """Why there can be no reply queue, and what to do."""
    return (
        f"No reply queue can be had, run modelmq topology apply with the same topology.reply_mode "
        f"({error.message.rstrip('.')})."
    )


def refusal(error: ChannelClosed) -> str:
    """Why the broker closed the channel we publish on, and what to do; a sentence without its stop."""
    if error.reply_code == _NOT_FOUND:
        return f"An exchange is missing, run modelmq topology apply ({error.message.rstrip('.')})"
    return f"The user may not publish, check its permissions ({error.message.rstrip('.')})"
