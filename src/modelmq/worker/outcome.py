"""The closed set of outcomes, and what each means for the caller, the broker and the dead-letter queue.

Every message that a worker takes ends in exactly one of these, per request and never per batch; `VERDICTS` is the only
place that decides who is told what. Pure: knows neither channels nor models.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

import msgspec

from modelmq.errors import RequestError
from modelmq.protocol import encode_error


class Outcome(enum.StrEnum):
    """How a request ended in this worker."""

    SUCCEEDED = "succeeded"
    INVALID = "invalid"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    DEAD = "dead"
    RETRIED = "retried"
    """Not an end: the model asked to see the request again later, and it waits on the broker until then."""
    RETURNED = "returned"
    """Not an end: the message goes back to its queue untouched, because this worker cannot or may not go on with it."""


class Verdict(NamedTuple):
    """What is done, in this order. A message is either acked or requeued, never both, never neither."""

    dead_letter: bool
    """Publish a copy to the dead-letter exchange and wait until the broker confirms it; without that, requeue."""
    reply: bool
    """Answer the caller, where the request names one that may be answered."""
    requeue: bool
    """nack(requeue) instead of ack."""
    retry: bool = False
    """Publish a copy to the retry exchange and wait until the broker confirms it; without that, requeue."""


VERDICTS: dict[Outcome, Verdict] = {
    Outcome.SUCCEEDED: Verdict(dead_letter=False, reply=True, requeue=False),
    Outcome.INVALID: Verdict(dead_letter=False, reply=True, requeue=False),
    Outcome.FAILED: Verdict(dead_letter=False, reply=True, requeue=False),
    Outcome.EXPIRED: Verdict(dead_letter=False, reply=True, requeue=False),
    Outcome.CANCELLED: Verdict(dead_letter=False, reply=False, requeue=False),
    Outcome.DEAD: Verdict(dead_letter=True, reply=True, requeue=False),
    Outcome.RETRIED: Verdict(dead_letter=False, reply=False, requeue=False, retry=True),
    Outcome.RETURNED: Verdict(dead_letter=False, reply=False, requeue=True),
}

UNWANTED = frozenset({Outcome.EXPIRED, Outcome.CANCELLED})
"""Nobody waits for the answer."""

OUTCOME_OF_CODE: dict[str, Outcome] = {
    "invalid": Outcome.INVALID,
    "not_found": Outcome.INVALID,
    "too_large": Outcome.INVALID,
    "unsupported": Outcome.INVALID,
    "overloaded": Outcome.FAILED,
    "failed": Outcome.FAILED,
    "unavailable": Outcome.FAILED,
    "dead": Outcome.DEAD,
    "expired": Outcome.EXPIRED,
    "cancelled": Outcome.CANCELLED,
}
"""The stable codes of error replies, by whose fault they are."""


class Later(msgspec.Struct, frozen=True):
    """How a request is to be tried again."""

    rungs_ms: tuple[int, ...]
    """The delays that will do, the one to take first; the next where a queue is full. At least one."""
    deadline_ms: int
    """Unix time: absolute from now on, whatever the caller wrote."""
    retries: int
    """How often it was put off, this time included."""
    asked_ms: int
    """Unix time of the model's word."""


class Answer(msgspec.Struct, frozen=True):
    """An outcome with the reply's body; `code` and `error` are empty for a success."""

    outcome: Outcome
    body: bytes = b""
    code: str = ""
    error: str = ""
    attempts: int = 0
    """How often the request was tried in vain; only with `dead`."""
    reason: str = ""
    """Why it is dead-lettered, in one word; only with `dead`, and empty for the common reason."""
    later: Later | None = None
    """Only with `retried`."""


RETURNED = Answer(Outcome.RETURNED)
CANCELLED = Answer(Outcome.CANCELLED, code="cancelled", error="The caller withdrew the request.")


def refusal(error: RequestError, *, attempts: int = 0, reason: str = "") -> Answer:
    """The answer that an error stands for."""
    return Answer(
        OUTCOME_OF_CODE.get(error.code, Outcome.FAILED),
        encode_error(error.message),
        error.code,
        error.message,
        attempts,
        reason,
    )
