"""The requests that wait for an answer: what became of each, and which of them have waited too long.

Stands between what a caller asks and what the broker tells (confirms, returns, replies, losses). Pure: events and
`now` in, decisions out; every request ends exactly once, and none outlives its deadline. Knows no AMQP and no futures.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Generic, Literal, NamedTuple, TypeVar

import msgspec

State = Literal["unsent", "sent", "confirmed", "ended"]
"""Unsent: to be published as soon as it can be. Confirmed: the broker has it, only the reply is missing."""

Verdict = Literal["expired", "unconfirmed", "unsent"]
"""Why waiting was in vain: the deadline passed, no confirm came in time, or there was no way to send in time."""

_SLACK = 64
"""Entries of the agenda that may be out of date beside one for each waiting request."""

T = TypeVar("T")


class Entry(msgspec.Struct, Generic[T], eq=False):
    """One request. `payload` is the caller's and stays unread."""

    id: str
    payload: T
    deadline_s: float
    give_up_s: float
    """When waiting for the confirm (sent) or for a way to send (unsent) ends."""
    state: State
    idempotent: bool
    accepted: bool = False
    """The broker once confirmed it. Should its way be lost, it may wait for another until its deadline."""
    refused: bool = False
    """The broker did not take it when it was last sent; to try again gives it no more time."""
    way: int = 0
    """By which of the ways that were taken in turn it was sent last; meaningless while it is unsent."""


class Overdue(NamedTuple, Generic[T]):
    """A request that `due` ended."""

    entry: Entry[T]
    verdict: Verdict


class Pending(Generic[T]):
    """The table. All times are of one monotonic clock."""

    def __init__(self, confirm_timeout_s: float) -> None:
        self._confirm_timeout_s = confirm_timeout_s
        self._entries: dict[str, Entry[T]] = {}
        # When to look at whom. What has ended stays in it until its time, or until there is too much of that: ending
        # costs nothing here, and a pass over the living is due only after as many requests as it has to visit.
        self._agenda: list[tuple[float, int, Entry[T]]] = []
        self._scheduled = 0
        self.way = 0
        """The way that requests are sent by from now on; the shell counts it up when it opens another."""

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry[T]]:
        """Oldest first; a copy, so that the loop may end them."""
        return iter(tuple(self._entries.values()))

    def add(self, id_: str, payload: T, deadline_s: float, now: float, *, idempotent: bool = True) -> Entry[T]:
        """A request that is not sent yet. `id_` was never used before."""
        entry = Entry(id_, payload, deadline_s, now + self._confirm_timeout_s, "unsent", idempotent)
        self._entries[id_] = entry
        self._schedule(entry)
        return entry

    def sent(self, entry: Entry[T], now: float) -> None:
        """It was handed to the broker; from now on its confirm is awaited."""
        entry.state = "sent"
        entry.way = self.way
        if not entry.refused:
            entry.give_up_s = self._give_up_s(entry, now)

    def confirmed(self, entry: Entry[T]) -> None:
        """The broker has it. Says nothing new of a request that has ended."""
        if entry.state == "sent":
            entry.state = "confirmed"
            entry.accepted = True
            entry.refused = False

    def put_back(self, entry: Entry[T]) -> None:
        """The broker did not take it, and may take it in a moment: it is unsent again."""
        if entry.state == "sent":
            entry.state = "unsent"
            entry.refused = True

    def answered(self, id_: str | None) -> Entry[T] | None:
        """The request that this reply ends, confirmed or not; None for a late reply, a duplicate or a stranger's."""
        entry = self._entries.pop(id_, None) if id_ is not None else None
        if entry is not None:
            entry.state = "ended"
        return entry

    def end(self, entry: Entry[T]) -> bool:
        """It was returned, refused or withdrawn; False when it had ended before."""
        if entry.state == "ended":
            return False
        del self._entries[entry.id]
        entry.state = "ended"
        return True

    def lost(self, now: float, way: int) -> list[Entry[T]]:
        """This way is gone, and with it that of the replies to what was sent by it.

        What may run twice is unsent again. The rest ends, because it may have run already: those are returned.
        """
        self.again(now, way)
        ended = self.under_way(way)
        for entry in ended:
            self.end(entry)
        return ended

    def again(self, now: float, way: int) -> None:
        """This way is about to go: what may run twice is unsent again, to be sent by another."""
        for entry in self.under_way(way):
            if entry.idempotent:
                entry.state = "unsent"
                entry.refused = False
                entry.give_up_s = self._give_up_s(entry, now)
                self._schedule(entry)

    def under_way(self, way: int) -> list[Entry[T]]:
        """What was sent by this way and has not ended, oldest first."""
        return [entry for entry in self._entries.values() if entry.way == way and entry.state != "unsent"]

    def unsent(self) -> list[Entry[T]]:
        """What is to be published, oldest first."""
        return [entry for entry in self._entries.values() if entry.state == "unsent"]

    def due(self, now: float) -> list[Overdue[T]]:
        """Ends every request whose time is over."""
        overdue = []
        while self._agenda and self._agenda[0][0] <= now:
            entry = heapq.heappop(self._agenda)[2]
            if entry.state == "ended":
                continue
            verdict = _verdict(entry, now)
            if verdict is None:
                self._schedule(entry)
            else:
                self.end(entry)
                overdue.append(Overdue(entry, verdict))
        return overdue

    def next_at(self) -> float | None:
        """When `due` is to be called next; None while nobody waits."""
        while self._agenda and self._agenda[0][2].state == "ended":
            heapq.heappop(self._agenda)
        return self._agenda[0][0] if self._agenda else None

    def _give_up_s(self, entry: Entry[T], now: float) -> float:
        return entry.deadline_s if entry.accepted else now + self._confirm_timeout_s

    def _schedule(self, entry: Entry[T]) -> None:
        self._scheduled += 1
        heapq.heappush(self._agenda, (_look_at(entry), self._scheduled, entry))
        if len(self._agenda) > 2 * len(self._entries) + _SLACK:
            self._agenda = [(_look_at(entry), number, entry) for number, entry in enumerate(self._entries.values())]
            heapq.heapify(self._agenda)


def _look_at(entry: Entry[T]) -> float:
    if entry.state == "confirmed" or entry.deadline_s < entry.give_up_s:
        return entry.deadline_s
    return entry.give_up_s


def _verdict(entry: Entry[T], now: float) -> Verdict | None:
    if now >= entry.deadline_s:
        return "expired"
    if entry.state == "confirmed" or now < entry.give_up_s:
        return None
    return "unsent" if entry.state == "unsent" else "unconfirmed"
