"""How many requests per second were settled lately. Pure; `now` in seconds of a monotonic clock."""

from __future__ import annotations

WINDOW_S = 1.0


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
