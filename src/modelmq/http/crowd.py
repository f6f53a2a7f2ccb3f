"""Who has to go when there are too many connections, or too much waits for clients that do not read.

Beside `connection`, which asks when a limit is met. Whoever asks for something stays; whoever only holds a place makes
room, so that a crowd of silent clients shuts nobody out. Decides; what a connection is, it does not know.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Collection
from typing import Protocol

LEAST_USELESS_S = 1.0
"""Nobody is sent away sooner: an honest client's next request, or the rest of its head, may be on its way."""
_LOOK_AGAIN_S = 0.25
"""Between two searches through all connections: one for each newcomer would cost more than it finds."""

_MOST_FOUND = 2048
"""Of one search; what is found and not sent away stays in memory until the next one."""


class Member(Protocol):
    """A connection."""

    @property
    def useless_since_s(self) -> float | None:
        """Since when nothing has come that asks for anything; None: it is of use."""
        ...

    @property
    def unread_since_s(self) -> float | None:
        """Since when its client has not read what was written; None: it reads."""
        ...

    def abort(self) -> None:
        """End it at once."""
        ...


class Crowd:
    """Over the connections of one server, which come and go in `members`."""

    def __init__(self, members: Collection[Member]) -> None:
        self._members = members
        self._useless: deque[tuple[float, Member]] = deque()
        self._next_look_s = 0.0

    def make_room(self, now_s: float) -> bool:
        """End the connection that has been of no use for longest; False where all are of some."""
        if not self._useless and now_s >= self._next_look_s:
            self._next_look_s = now_s + _LOOK_AGAIN_S
            self._useless = deque(heapq.nsmallest(_MOST_FOUND, self._found(now_s), key=lambda found: found[0]))
        while self._useless:
            since_s, member = self._useless.popleft()
            if member.useless_since_s == since_s:  # else it has asked for something since, or has gone
                member.abort()
                return True
        return False

    def _found(self, now_s: float) -> list[tuple[float, Member]]:
        latest_s = now_s - LEAST_USELESS_S
        return [
            (since_s, member)
            for member in self._members
            if (since_s := member.useless_since_s) is not None and since_s <= latest_s
        ]

    def drop_slowest_reader(self) -> None:
        """End the connection whose client has not read for longest."""
        waiting = [
            (since_s, number, member)
            for number, member in enumerate(self._members)
            if (since_s := member.unread_since_s) is not None
        ]
        if waiting:
            min(waiting)[2].abort()


def most_with_refused(max_connections: int) -> int:
    """How many connections there may be with those that are just being told that there are too many."""
    return max_connections + max_connections // 8 + 2
