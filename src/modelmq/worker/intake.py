"""From a message to a work item: every check that comes before computing, in the order in which they protect.

May its reply address be answered, which version is asked for, is there time left, was it withdrawn, is the body of a
size and type we read, do the tensors fit the model. AMQP callers bypass the gateway, so all of it is checked here.
Pure: no I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Generic, NamedTuple, Protocol, TypeVar

import msgspec

from modelmq.amqp import Properties
from modelmq.bundles import BUNDLE
from modelmq.errors import BrokerError, Cancelled, Expired, InvalidRequest, ModelFailed, RequestError, TooLarge
from modelmq.messages import DEADLINE_HEADER, JSON, Lane, parse_routing_key
from modelmq.metadata import Signature
from modelmq.protocol.json_codec import decode_request
from modelmq.protocol.validation import rows_of
from modelmq.worker.item import Message, Origin, WorkItem
from modelmq.worker.joining import batch_key
from modelmq.worker.outcome import CANCELLED, Answer, refusal
from modelmq.worker.reply_address import ReplyRules
from modelmq.worker.tombstones import Name, Tombstones

HELD_ALONE_FROM = 5
"""Deliveries by the broker's own count after which a message is computed alone."""
_DELIVERY_COUNT = "x-delivery-count"
_FOREVER = float("inf")
_FAR_S = 10 * 365 * 86_400.0


class Target(Protocol):
    """What intake must know of the version that a request is for."""

    @property
    def model(self) -> str: ...  # noqa: D102 - the names say it
    @property
    def signature(self) -> Signature: ...  # noqa: D102
    @property
    def max_rows(self) -> int: ...  # noqa: D102
    @property
    def timeout_s(self) -> float: ...  # noqa: D102


class Rules(msgspec.Struct, frozen=True):
    """The limits of one worker, and what it shall not compute."""

    max_body_bytes: int
    replies: ReplyRules
    tombstones: Tombstones = msgspec.field(default_factory=Tombstones)


class Clock(NamedTuple):
    """One moment on both clocks: deadlines travel in Unix time, the worker reckons in monotonic time."""

    monotonic_s: float
    unix_s: float


TargetT = TypeVar("TargetT", bound=Target)


class Refusal(msgspec.Struct, Generic[TargetT], frozen=True):
    """A message that is not computed. `reply_to` empty: nobody may be answered."""

    answer: Answer
    reply_to: str
    target: TargetT | None
    """The version it was for, where that is known."""


class Source(NamedTuple):
    """The channel and the lane a message came through."""

    origin: Origin
    lane: Lane


def admit(
    delivery: Message, source: Source, resolve: Callable[[str | None], TargetT], rules: Rules, now: Clock
) -> tuple[TargetT, WorkItem] | Refusal[TargetT]:
    """The request with its target, or why it is not computed. Never raises: a message cannot harm the worker.

    `resolve` gives the version asked for, None meaning none in particular, and raises NotFound or Unavailable.
    """
    reply_to, target = "", None
    try:
        properties = _readable(delivery)
        reply_to = rules.replies.checked(properties.reply_to)
        target = resolve(_version(delivery.routing_key))
        headers = properties.headers or {}
        deadline_s = _deadline(headers, properties.expiration, target.timeout_s, now)
        _check_wanted((reply_to, properties.correlation_id or ""), rules, now)
        _check_size(delivery.body_size, rules)
        request = decode_request(
            delivery.body, target.signature, content_type=properties.content_type or JSON, headers=headers
        )
        rows = rows_of(request, target.signature)
        _check_rows(rows, target)
    except RequestError as error:
        return Refusal(refusal(error), reply_to, target)
    except Exception as error:
        return Refusal(refusal(ModelFailed(f"The worker could not read the request: {error!r}.")), reply_to, target)
    suspicion = _suspicion(delivery, headers)
    return target, WorkItem(
        origin=source.origin,
        delivery=delivery,
        lane=source.lane,
        reply_to=reply_to,
        request_id=request.id,
        inputs=request.inputs,
        outputs=request.outputs,
        rows=rows,
        key=(suspicion, batch_key(request.inputs)) if target.signature.batched else object(),
        received_s=now.monotonic_s,
        deadline_s=deadline_s,
    )


def log_id(delivery: Message) -> str:
    """The name under which logs know this request."""
    try:
        properties = delivery.properties
        return str(properties.message_id or properties.correlation_id or "")
    except BrokerError:
        return ""


def _readable(delivery: Message) -> Properties:
    """Properties are decoded on first use, so a malformed header table shows only here."""
    try:
        properties = delivery.properties
        _ = properties.headers
    except BrokerError as error:
        raise InvalidRequest(f"The message's properties cannot be read: {error.message}") from error
    if properties.content_type == BUNDLE:  # one that could be read has been taken apart
        raise InvalidRequest("The bundle of requests cannot be read; send each request as a message of its own.")
    return properties


@lru_cache(maxsize=1024)
def _version(routing_key: str) -> str | None:
    """The queue tells the model, the key only the version; a key of any other form asks for no version."""
    route = parse_routing_key(routing_key)
    return route.version if route else None


def _deadline(headers: Mapping[str, object], expiration: str | None, timeout_s: float, now: Clock) -> float:
    """On the monotonic clock. Raises InvalidRequest for a header that is no time, Expired when it has passed."""
    value = headers.get(DEADLINE_HEADER)
    if value is None:
        if expiration and expiration.isdecimal():
            timeout_s = min(int(expiration[:15]) / 1000, _FAR_S)
        return now.monotonic_s + timeout_s
    left_s = time_left(value, now.unix_s)
    if left_s <= 0:
        raise Expired("The request's deadline had passed before a worker received it.")
    return now.monotonic_s + left_s


def time_left(deadline: object, unix_s: float) -> float:
    """Seconds to the deadline that a header tells. Raises InvalidRequest for one that is no time."""
    if (type(deadline) is not int and type(deadline) is not float) or not 0 <= deadline < _FOREVER:
        raise InvalidRequest(
            f'The header "{DEADLINE_HEADER}" must be a number of milliseconds since 1970 (UTC), 0 or more.'
        )
    return min(min(deadline, 1e18) / 1000 - unix_s, _FAR_S)


def _check_wanted(name: Name, rules: Rules, now: Clock) -> None:
    if rules.tombstones.holds(name, now.monotonic_s):
        raise Cancelled(CANCELLED.error)


def _check_size(body_bytes: int, rules: Rules) -> None:
    if body_bytes > rules.max_body_bytes:
        raise TooLarge(f"The request has {body_bytes} bytes; the limit is {rules.max_body_bytes}.")


def _check_rows(rows: int, target: Target) -> None:
    if rows > target.max_rows:
        raise InvalidRequest(
            f"The request has {rows} rows; model {target.model} takes at most {target.max_rows} "
            "(max_batch_size); send fewer rows per request."
        )


def _suspicion(delivery: Message, headers: Mapping[str, object]) -> object:
    """Part of the batch key. Messages that a worker may have died of share no batch with fresh ones."""
    if not delivery.redelivered:
        return False
    count = headers.get(_DELIVERY_COUNT)
    return object() if isinstance(count, int) and count >= HELD_ALONE_FROM else True
