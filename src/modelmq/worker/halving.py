"""Finds the culprits of a batch that raised, or in which the model's process died, by running it again in halves.

A plan of runs: the caller runs what `next` gives and tells how it went, until nothing is left. One culprit among n
requests costs at most 2·⌈log2 n⌉ runs beyond the first, and every other request succeeds. Pure; knows no models.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")


class Halving(Generic[T]):
    """What of one batch is still to be run. Each `next` is followed by exactly one of succeeded, raised, died."""

    def __init__(self, items: Sequence[T], *, max_attempts: int) -> None:
        self._waiting: list[tuple[T, ...]] = [tuple(items)] if items else []
        self._current: tuple[T, ...] = ()
        self._max_attempts = max_attempts
        self._attempts = 0
        self.runs = 0

    @property
    def attempts(self) -> int:
        """How often the current run, of one request alone, has ended the process."""
        return self._attempts

    def next(self) -> tuple[T, ...]:
        """What to run now; empty when the batch is done."""
        before, self._current = self._current, self._waiting.pop() if self._waiting else ()
        if self._current is not before:
            self._attempts = 0
        if self._current:
            self.runs += 1
        return self._current

    def keep(self, wanted: Callable[[T], bool]) -> list[T]:
        """Drop what nobody wants any more before it is run again; the dropped are returned."""
        dropped = [item for part in self._waiting for item in part if not wanted(item)]
        if dropped:
            parts = (tuple(filter(wanted, part)) for part in self._waiting)
            self._waiting = [part for part in parts if part]
        return dropped

    def rest(self) -> list[T]:
        """Give up: everything not yet run, which the plan then forgets."""
        rest = [item for part in reversed(self._waiting) for item in part]
        self._waiting.clear()
        return rest

    def succeeded(self) -> None:
        """The current run gave an answer for each of its requests; nothing of it is left to be run."""

    def raised(self) -> T | None:
        """The current run raised. Returns its request when it was alone: that one is the culprit."""
        return self._current[0] if self._alone() else None

    def died(self) -> T | None:
        """The process ended during the current run. Returns its request after `max_attempts` deaths alone."""
        if not self._alone():
            return None
        self._attempts += 1
        if self._attempts >= self._max_attempts:
            return self._current[0]
        self._waiting.append(self._current)
        return None

    def _alone(self) -> bool:
        """Whether the current run has only one request; if not, its halves are run next."""
        if len(self._current) == 1:
            return True
        middle = (len(self._current) + 1) // 2
        self._waiting += [self._current[middle:], self._current[:middle]]
        return False
