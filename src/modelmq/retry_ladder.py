"""The ladder of delays that a request may wait out before its model is tried again: a queue of one time to live each.

A worker publishes to the retry exchange with the rung in a header, so that the request keeps its routing key; when its
time is over, the broker takes it back to its lane by that key. Shared by all models. Pure: knows neither requests nor
the broker.
"""

from __future__ import annotations

import math
from bisect import bisect_left

RETRY_EXCHANGE = "ml-retry-exchange"
RUNG_HEADER = "retry-rung"
"""Which delay a message waits out: milliseconds, as text, as the broker's bindings compare it."""
QUEUES = "ml-retry."
"""How the names of the delay queues begin."""

_SHORTEST_MS, _LONGEST_MS, _STEP = 250, 600_000, 1.5


def _rungs() -> tuple[int, ...]:
    rungs: list[int] = []
    delay_ms = float(_SHORTEST_MS)
    while delay_ms < _LONGEST_MS:
        rungs.append(math.ceil(delay_ms))
        delay_ms *= _STEP
    return (*rungs, _LONGEST_MS)


RUNGS_MS = _rungs()
"""From 0.25 s to 10 min, each half as long again as the one before, so that rounding up costs at most that half."""


def queue_of(rung_ms: int) -> str:
    """The queue whose messages wait so long."""
    return f"{QUEUES}{rung_ms}"


def at_least(after_s: float) -> tuple[int, ...]:
    """The rungs that are long enough, the shortest first; the longest alone for more than there is."""
    return RUNGS_MS[min(bisect_left(RUNGS_MS, after_s * 1000), len(RUNGS_MS) - 1) :]
