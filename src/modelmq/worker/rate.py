"""How many requests per second were settled lately, how many may therefore come in one message, what one costs.

Pure; `now` in seconds of a monotonic clock.
"""

from __future__ import annotations

from modelmq.bundles import MOST_PARTS

WINDOW_S = 1.0
WORTH_IT_PER_S = 500.0
"""For a model that can do less, a message for each request costs the broker little, and its queue's depth, which counts
messages, tells how many requests wait."""
WORK_HELD_S = 1.0
"""A lane holds at most two batches, or so much work."""
_NEWEST = 0.1
"""The weight of the last batch in the mean of all."""


def bundle_limit(per_s: float, capacity_per_s: float, prefetch: int, max_rows: int) -> int:
    """Requests per message with which a lane full of bundles is WORK_HELD_S of work; at most a batch, at least one.

    By what the model does now or has shown that it can do, whichever is more: else the first second of each burst would
    have a message for each request. `capacity_per_s` is 0 while it is not known.
    """
    if 0 < capacity_per_s < WORTH_IT_PER_S:
        return 1
    able_per_s = max(per_s, capacity_per_s)
    return max(1, min(int(able_per_s * WORK_HELD_S / prefetch), max_rows, MOST_PARTS))


class Rate:
    """Counts over windows of at least one second; the last full window is the answer."""

    def __init__(self) -> None:
        self._start = 0.0
        self._count = 0
        self._per_s = 0.0

    def add(self, count: int, now: float) -> None:
        """So many more."""
        self._turn(now)
        self._count += count

    def per_s(self, now: float) -> float:
        """Requests per second."""
        self._turn(now)
        return self._per_s

    def _turn(self, now: float) -> None:
        passed = now - self._start
        if passed >= WINDOW_S:
            self._per_s = round(self._count / passed, 3)
            self._start, self._count = now, 0


class Cost:
    """Seconds of computing per request, a mean in which the latest batches count most."""

    def __init__(self) -> None:
        self.mean_s: float | None = None

    def ran(self, requests: int, duration_s: float) -> None:
        """A batch of so many was computed."""
        each_s = duration_s / requests
        self.mean_s = each_s if self.mean_s is None else self.mean_s + _NEWEST * (each_s - self.mean_s)

    def saved_s(self, requests: int, spent_s: float = 0.0) -> float:
        """What computing these would have cost, beyond what was spent; 0 while nothing is known."""
        return max(0.0, requests * (self.mean_s or 0.0) - spent_s)
