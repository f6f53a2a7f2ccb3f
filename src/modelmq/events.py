"""What services tell about themselves: typed events that logs, metrics and traces subscribe to.

Services call `emit(event)`; they import no logging, Prometheus or OpenTelemetry. This file is the documentation
of what can be observed. Hot paths emit one event per batch or per answered request, never per step.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec


class Event(msgspec.Struct, frozen=True):
    """Something happened. Names are past tense; units live in field names."""


class ServiceStarted(Event, frozen=True):
    """The service accepts work."""

    service: str
    address: str = ""


class ServiceStopping(Event, frozen=True):
    """The service was told to drain."""

    service: str
    reason: str = ""


class BrokerConnected(Event, frozen=True):
    """A connection to RabbitMQ is ready for use."""

    service: str
    endpoint: str


class BrokerDisconnected(Event, frozen=True):
    """A connection to RabbitMQ ended; the next attempt follows after `retry_in_s`."""

    service: str
    reason: str
    retry_in_s: float


class BrokerHandedOver(Event, frozen=True):
    """A secret changed: a new connection, as `user`, has taken over, and the one before is being finished with."""

    service: str
    endpoint: str
    user: str


class BrokerHandOverFailed(Event, frozen=True):
    """A secret changed and cannot be used; the connection made with the one before is kept until it works."""

    service: str
    reason: str
    retry_in_s: float


class BrokerDrained(Event, frozen=True):
    """Nothing was left on the connection that was handed over from, as `user`, and it was closed."""

    service: str
    user: str
    duration_s: float


class BrokerBlocked(Event, frozen=True):
    """RabbitMQ raised or cleared an alarm (`blocked` false) and takes no publishes meanwhile."""

    service: str
    blocked: bool
    reason: str = ""


class RequestAnswered(Event, frozen=True):
    """The gateway answered one inference request; `code` is `ok` or a stable error code."""

    request_id: str
    model: str
    version: str
    code: str
    duration_s: float
    error: str = ""


class RequestsRefused(Event, frozen=True):
    """The gateway refused so many requests within `duration_s` because too much waits already; `error` is the last."""

    model: str
    count: int
    duration_s: float
    error: str


class MessageRefused(Event, frozen=True):
    """A worker refused a message before computing: it could not be decoded, or nobody may be answered."""

    request_id: str
    model: str
    code: str
    error: str


class BatchFinished(Event, frozen=True):
    """A worker settled one batch. `runs` counts model executions, so 1 means nothing was re-run."""

    model: str
    version: str
    requests: int
    rows: int
    runs: int
    duration_s: float
    queued_s: float
    """How long the batch's oldest request waited in this worker."""
    outcomes: dict[str, int]
    """Requests by outcome: succeeded, invalid, failed, expired, cancelled, dead."""


class RequestFailed(Event, frozen=True):
    """One request of a batch did not succeed."""

    request_id: str
    model: str
    version: str
    code: str
    error: str


class RequestRetried(Event, frozen=True):
    """A model put one request off, for the `retries`-th time; unless that queue is full, by `delay_s`."""

    request_id: str
    model: str
    version: str
    retries: int
    delay_s: float
    why: str


class WorkDropped(Event, frozen=True):
    """Nobody waits for these requests any more (`reason`: expired, cancelled), so they were not computed, or not on."""

    model: str
    version: str
    reason: str
    requests: int
    saved_s: float
    """What computing them would have cost, by the model's latest batches."""


class ModelLoaded(Event, frozen=True):
    """A model's process is warm and ready."""

    model: str
    version: str
    duration_s: float


class ModelLoadFailed(Event, frozen=True):
    """A model cannot be served; the worker serves its others."""

    model: str
    version: str
    error: str


class ModelProcessEnded(Event, frozen=True):
    """A model's process ended without being asked to."""

    model: str
    version: str
    reason: str
    requests_held: int


class QueueMissing(Event, frozen=True):
    """A model's queue is absent; the worker serves its others and looks again after `retry_in_s`."""

    queue: str
    advice: str
    retry_in_s: float


class ConsumerEnded(Event, frozen=True):
    """RabbitMQ ended a worker's consumer, or the channel it was on; the worker consumes the queue again."""

    queue: str
    reason: str


class ModelSeen(Event, frozen=True):
    """The gateway learnt that a model's state among the workers changed."""

    model: str
    version: str
    state: str
    reason: str = ""


class ReplyUnmatched(Event, frozen=True):
    """A reply came that nobody waits for: late, or a duplicate."""

    service: str
    correlation_id: str


Emit = Callable[[Event], None]


def ignore(event: Event) -> None:
    """The subscriber of a service that nobody observes."""
