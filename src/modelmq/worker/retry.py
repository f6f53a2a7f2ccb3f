"""What becomes of a request that its model wants to see again later: put off, or told at once that it cannot be.

Beside answers, before the lane, which publishes the copy made here. Pure: the clock and the jitter are arguments.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelmq.errors import BrokerError, DeadLettered, Expired
from modelmq.messages import DEADLINE_HEADER, RETRIES_HEADER, RETRY_HISTORY_HEADER
from modelmq.retry_ladder import RETRY_EXCHANGE, RUNG_HEADER, at_least
from modelmq.runtimes import ModelSource
from modelmq.worker.dead_letter import Letter, kept_headers, kept_properties
from modelmq.worker.intake import Clock
from modelmq.worker.item import Message, WorkItem
from modelmq.worker.outcome import Answer, Later, Outcome, refusal
from modelmq.worker.wire import Raised

REASON = "retries_exhausted"
MOST_RUNGS = 4
"""Delay queues that are tried, where the first ones are full."""
LONGEST_HISTORY = 20
LONGEST_WHY = 200
_MOST = 2**53
_NO_WHY = "it did not say why"


def answer(item: WorkItem, raised: Raised, source: ModelSource, now: Clock, draw: float) -> Answer:
    """Later, if the request may be put off once more and its deadline leaves the time; else final, with its words.

    `draw`, from 0 to below 1, picks between the shortest delay that is long enough and the one above it, so that what
    was put off together does not come back together.
    """
    why = raised.message or _NO_WHY
    retries = retries_of(item.delivery) + 1
    if retries > source.settings.max_retries:
        return _exhausted(source, why, retries)
    left_ms = (item.deadline_s - now.monotonic_s) * 1000
    rungs = [rung_ms for rung_ms in at_least(raised.after_s or 0.0) if rung_ms < left_ms]
    if not rungs:
        return _too_late(source, why, raised.after_s or 0.0, retries)
    first = int(draw * min(len(rungs), 2))
    now_ms = int(now.unix_s * 1000)
    later = Later(tuple(rungs[first : first + MOST_RUNGS]), now_ms + int(left_ms), retries, now_ms)
    return Answer(Outcome.RETRIED, error=why, later=later)


def copy_of(delivery: Message, why: str, later: Later) -> Letter:
    """The request as it came, for the delay queue of the first rung: persistent, without expiration, its deadline
    absolute, its history one longer.
    """
    delay_ms = later.rungs_ms[0]
    record = {"at": later.asked_ms, "delay_ms": delay_ms, "error": why[:LONGEST_WHY]}
    headers = kept_headers(delivery) | {
        RUNG_HEADER: str(delay_ms),
        RETRIES_HEADER: later.retries,
        RETRY_HISTORY_HEADER: [*history_of(delivery), record][-LONGEST_HISTORY:],
    }
    if headers.get(DEADLINE_HEADER) is None:
        headers[DEADLINE_HEADER] = later.deadline_ms
    return Letter(RETRY_EXCHANGE, delivery.routing_key, kept_properties(delivery, headers), delivery.body)


def retries_of(delivery: Message) -> int:
    """How often it was put off before. What a caller may have written there counts if it is a count."""
    count = _headers(delivery).get(RETRIES_HEADER)
    return count if type(count) is int and 0 <= count < _MOST else 0


def history_of(delivery: Message) -> list[dict[str, Any]]:
    """The records of that, as far as they are such."""
    told = _headers(delivery).get(RETRY_HISTORY_HEADER)
    found = [_record(each) for each in told[-LONGEST_HISTORY:]] if isinstance(told, list) else []
    return [each for each in found if each is not None]


def _record(told: object) -> dict[str, Any] | None:
    match told:
        case {"at": int(at), "delay_ms": int(delay_ms), "error": str(error)} if (
            0 <= at < _MOST and 0 <= delay_ms < _MOST
        ):
            return {"at": at, "delay_ms": delay_ms, "error": error[:LONGEST_WHY]}
        case _:
            return None


def _headers(delivery: Message) -> Mapping[str, Any]:
    try:
        return delivery.properties.headers or {}
    except BrokerError:
        return {}


def _exhausted(source: ModelSource, why: str, tries: int) -> Answer:
    most = source.settings.max_retries
    error = DeadLettered(
        f"Model {source.name} asked for a later try each of the {tries} times it saw this request, and max_retries is "
        f"{most}; the request is kept in the dead-letter queue. The last time it said: {why}"
    )
    return refusal(error, attempts=tries, reason=REASON)


def _too_late(source: ModelSource, why: str, after_s: float, tries: int) -> Answer:
    return refusal(
        Expired(
            f"Model {source.name} asked for a later try, in {after_s:g} s, but the request's deadline comes sooner. "
            f"It was try {tries}, and it said: {why}"
        )
    )
