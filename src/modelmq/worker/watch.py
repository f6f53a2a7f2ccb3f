"""Looks whether anybody still waits for the run that is under way, and says once when nobody does.

Nobody does when each request of it was withdrawn, is past its deadline, or was taken back by the broker. Between the
served version, which begins and ends runs, and the model's process. One timer serves all runs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from modelmq.worker.item import WorkItem


class Watch:
    """`tell` is called once for a run that nobody waits for; `told` says so until the next one."""

    def __init__(self, tell: Callable[[], None]) -> None:
        self.told = False
        self._tell = tell
        self._items: Sequence[WorkItem] = ()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_s = 0.0

    def begin(self, items: Sequence[WorkItem]) -> None:
        """A run of these, at least one."""
        self.told = False
        self._items = items
        self._look_at(max([item.deadline_s for item in items]))

    def end(self) -> None:
        """It gave its result."""
        self._items = ()

    def look(self) -> None:
        """Something happened to requests that may be part of it."""
        now = time.monotonic()
        last_s = max([item.deadline_s for item in self._items if item.origin.open and not item.withdrawn], default=now)
        if last_s > now:
            self._look_at(last_s)
        elif self._items and not self.told:
            self.told = True
            self._tell()

    def close(self) -> None:
        """No run any more."""
        self.end()
        if self._timer is not None:
            self._timer.cancel()

    def _look_at(self, at_s: float) -> None:
        """At the latest; where a timer is set to an earlier time, it looks, and goes on to the next."""
        if self._timer is None or at_s < self._timer_s:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_s = at_s
            self._timer = asyncio.get_running_loop().call_later(max(0.0, at_s - time.monotonic()), self._on_time)

    def _on_time(self) -> None:
        self._timer = None
        self.look()
