"""Which waiting requests are run together next, and when.

Requests join only under equal keys (same inputs, types and trailing shapes; suspects with suspects). Interactive ones
go first, with a minimum share for bulk. Pure: `now` is an argument, in seconds of any one clock; knows no channels.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterator
from typing import Generic, NamedTuple, Protocol, TypeVar

from modelmq.messages import LANES, Lane
from modelmq.metadata import BatchPolicy

INTERACTIVE_PER_BULK = 19
"""So many interactive batches may pass a waiting bulk one: bulk gets at least every 20th batch, 5 %."""


class Batchable(Protocol):
    """What the batcher needs to know of a request."""

    @property
    def lane(self) -> Lane: ...  # noqa: D102 - the names say it
    @property
    def key(self) -> Hashable: ...  # noqa: D102
    @property
    def rows(self) -> int: ...  # noqa: D102
    @property
    def received_s(self) -> float: ...  # noqa: D102
    @property
    def deadline_s(self) -> float: ...  # noqa: D102


T = TypeVar("T", bound=Batchable)


class Taken(NamedTuple, Generic[T]):
    """A batch (empty: nothing is ripe) and the requests whose deadline had passed when they were reached."""

    items: tuple[T, ...]
    expired: tuple[T, ...]


class _Group(Generic[T]):
    """Requests that may be joined, oldest first."""

    __slots__ = ("items", "rows")

    def __init__(self) -> None:
        self.items: deque[T] = deque()
        self.rows = 0


class Batcher(Generic[T]):
    """The requests that wait for one version of one model. Nothing added is lost: take, or remove, gives it back."""

    def __init__(self, policy: BatchPolicy) -> None:
        self._max_rows = policy.max_batch_size
        self._delay_s = policy.max_queue_delay_ms / 1000
        self._lanes: dict[Lane, dict[Hashable, _Group[T]]] = {lane: {} for lane in LANES}
        self._passed = 0  # interactive batches since bulk last had its turn or had nothing to do
        self._waiting = 0

    def __len__(self) -> int:
        return self._waiting

    def __iter__(self) -> Iterator[T]:
        for groups in self._lanes.values():
            for group in groups.values():
                yield from group.items

    def add(self, item: T) -> None:
        """Let a request wait for its batch."""
        groups = self._lanes[item.lane]
        group = groups.get(item.key)
        if group is None:
            group = groups[item.key] = _Group()
        group.items.append(item)
        group.rows += item.rows
        self._waiting += 1

    def take(self, now: float, *, hurry: bool = False) -> Taken[T]:
        """The next batch: rows up to the limit, or one larger request alone. `hurry` waits for no fuller batch."""
        expired: list[T] = []
        for lane in self._preference():
            while (key := self._ripest(lane, now, hurry=hurry)) is not None:
                items = self._gather(lane, key, now, expired)
                if items:
                    self._count(lane)
                    return Taken(tuple(items), tuple(expired))
        return Taken((), tuple(expired))

    def ripe_at(self) -> float | None:
        """When `take` gives something at the latest if nothing is added; None when nothing waits."""
        times = [self._ripe_at(group) for groups in self._lanes.values() for group in groups.values()]
        return min(times, default=None)

    def remove(self, unwanted: Callable[[T], bool]) -> list[T]:
        """Take out every request that the predicate names; the others keep their places."""
        removed: list[T] = []
        for groups in self._lanes.values():
            for key, group in list(groups.items()):
                gone = [item for item in group.items if unwanted(item)]
                if not gone:
                    continue
                removed += gone
                group.items = deque(item for item in group.items if not unwanted(item))
                group.rows -= sum(item.rows for item in gone)
                if not group.items:
                    del groups[key]
        self._waiting -= len(removed)
        return removed

    def _preference(self) -> tuple[Lane, Lane]:
        due = self._passed >= INTERACTIVE_PER_BULK and self._lanes["bulk"]
        return ("bulk", "interactive") if due else ("interactive", "bulk")

    def _count(self, lane: Lane) -> None:
        self._passed = self._passed + 1 if lane == "interactive" and self._lanes["bulk"] else 0

    def _ripest(self, lane: Lane, now: float, *, hurry: bool) -> Hashable | None:
        """The key whose oldest request waits longest, among those that need not wait for company any more."""
        groups = self._lanes[lane]
        ripe = [key for key, group in groups.items() if hurry or self._ripe_at(group) <= now]
        return min(ripe, key=lambda key: groups[key].items[0].received_s, default=None)

    def _ripe_at(self, group: _Group[T]) -> float:
        oldest = group.items[0]
        if group.rows >= self._max_rows:
            return oldest.received_s
        return min(oldest.received_s + self._delay_s, oldest.deadline_s)

    def _gather(self, lane: Lane, key: Hashable, now: float, expired: list[T]) -> list[T]:
        """Requests from the front of a group, in order, as long as their rows fit."""
        groups = self._lanes[lane]
        group = groups[key]
        items: list[T] = []
        rows = 0
        waiting = group.items
        while waiting:
            item = waiting[0]
            if item.deadline_s <= now:
                expired.append(item)
            elif items and rows + item.rows > self._max_rows:
                break
            else:
                items.append(item)
                rows += item.rows
            waiting.popleft()
            group.rows -= item.rows
            self._waiting -= 1
        if not waiting:
            del groups[key]
        return items
