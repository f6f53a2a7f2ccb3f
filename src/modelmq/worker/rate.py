"""How many requests per second were settled lately, and how many may therefore come in one message.

Pure; `now` in seconds of a monotonic clock.
"""

from __future__ import annotations

from modelmq.bundles import MOST_PARTS

WINDOW_S = 1.0
WORK_HELD_S = 1.0
"""A lane holds at most two batches, or so much work."""


def bundle_limit(per_s: float, prefetch: int, max_rows: int) -> int:
    """Requests per message with which a lane full of bundles is WORK_HELD_S of work; at most a batch, at least one."""
    return max(1, min(int(per_s * WORK_HELD_S / prefetch), max_rows, MOST_PARTS))


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
