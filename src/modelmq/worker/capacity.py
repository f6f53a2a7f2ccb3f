"""How many requests per second a model can do, as far as that is known: learnt only while it had enough to do.

A model that is asked once a minute is not slow, and small batches do not tell what full ones would. So only batches
count that were full, or that left others waiting. But where all the small batches of a time are faster than what is
known, that is out of date: else a stall would be remembered for ever, as who is refused for it fills no batches. And
only the time the model was busy counts. Pure; seconds of a monotonic clock.
"""

from __future__ import annotations

from collections import deque

SLICE_S = 0.1
"""Of busy time: what a model does in less is summed up first."""
SLICES = 10
"""So many are remembered: a second of work for a fast model, ten batches for a slow one. Then a stall is forgotten."""


class Capacity:
    """What one version of a model showed that it can do."""

    def __init__(self) -> None:
        self._slices: deque[tuple[int, float]] = deque(maxlen=SLICES)
        self._count = 0
        self._busy_s = 0.0
        self._small = (0, 0.0)
        """Requests and seconds of batches that were not full, up to as much as is remembered of the others."""
        self._ended_s = float("-inf")
        self.per_s = 0.0
        """Requests per busy second; 0 while it is not known."""

    def finished(self, count: int, waited_since_s: float, ended_s: float, *, full: bool) -> None:
        """A batch of so many requests, of which the oldest was there since `waited_since_s`, has ended.

        `full`: no more could have been in it, or others were left to wait.
        """
        # While it waited for the batch before, the model was busy with that one.
        began_s = max(waited_since_s, self._ended_s)
        self.passed(ended_s)
        busy_s = max(0.0, ended_s - began_s)
        if not full:
            self._look_small(count, busy_s)
            return
        self._count += count
        self._busy_s += busy_s
        if self._busy_s >= SLICE_S:
            self._remember(self._count, self._busy_s)
            self._count, self._busy_s = 0, 0.0

    def passed(self, ended_s: float) -> None:
        """The model was busy until then with what tells nothing."""
        self._ended_s = max(ended_s, self._ended_s)

    def _look_small(self, count: int, busy_s: float) -> None:
        """All of them together, and never only the fast ones, which tell of chance."""
        count, busy_s = self._small[0] + count, self._small[1] + busy_s
        if busy_s >= SLICES * SLICE_S:
            if 0 < self.per_s < count / busy_s:
                self._slices.clear()
                self._remember(count, busy_s)
            count, busy_s = 0, 0.0
        self._small = count, busy_s

    def _remember(self, count: int, busy_s: float) -> None:
        self._slices.append((count, busy_s))
        busy_s = sum(seconds for _, seconds in self._slices)
        self.per_s = round(sum(count for count, _ in self._slices) / busy_s, 3)
