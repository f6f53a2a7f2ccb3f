"""The ledgers as numbers per second: what was asked, what became of it, how long it took. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec

from tests.chaos import ledger
from tests.chaos.checker import History
from tests.chaos.ledger import Invoke, Outcome


class Second(msgspec.Struct):
    """One bin. Latencies in seconds, of what was answered within it; 0 where nothing was."""

    at: float
    asked: int = 0
    outcomes: Counter[str] = msgspec.field(default_factory=Counter)
    p50_s: float = 0.0
    p99_s: float = 0.0
    longest_s: float = 0.0

    @property
    def ok(self) -> int:
        """Successes."""
        return self.outcomes[ledger.OK]


def seconds(history: History, began_at: float, ended_at: float, width_s: float = 1.0) -> list[Second]:
    """Bins of this width from the beginning to the end."""
    count = max(1, int((ended_at - began_at) / width_s) + 1)
    bins = [Second(began_at + number * width_s) for number in range(count)]
    latencies: list[list[float]] = [[] for _ in bins]
    for _, lines in history:
        invoked: dict[str, float] = {}
        for line in lines:
            number = int((line.at - began_at) / width_s)
            if not 0 <= number < count:
                continue
            if isinstance(line, Invoke):
                bins[number].asked += 1
                invoked[line.id] = line.at
            elif isinstance(line, Outcome) and not line.again:
                bins[number].outcomes[line.code] += 1
                if line.code == ledger.OK and line.id in invoked:
                    latencies[number].append(line.at - invoked[line.id])
    for each, found in zip(bins, latencies, strict=True):
        found.sort()
        if found:
            each.p50_s, each.p99_s, each.longest_s = share(found, 0.5), share(found, 0.99), found[-1]
    return bins


def share(ordered: Sequence[float], part: float) -> float:
    """The value below which this part of the ordered values lies."""
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def latencies_ok(history: History) -> list[float]:
    """Of all successes, in order of size."""
    found = []
    for _, lines in history:
        invoked = {line.id: line.at for line in lines if isinstance(line, Invoke)}
        found += [
            line.at - invoked[line.id]
            for line in lines
            if isinstance(line, Outcome) and line.code == ledger.OK and not line.again and line.id in invoked
        ]
    return sorted(found)


def in_flight_at(history: History, times: Iterable[float]) -> list[int]:
    """How many requests were under way at each of these times, which are in order; what was never answered is not."""
    steps: list[tuple[float, int]] = []
    for _, lines in history:
        invoked = {line.id: line.at for line in lines if isinstance(line, Invoke)}
        ended: set[str] = set()
        for line in lines:
            if isinstance(line, Outcome) and line.id in invoked and line.id not in ended:
                ended.add(line.id)
                steps += [(invoked[line.id], 1), (line.at, -1)]
    steps.sort()
    found, at, under_way = [], 0, 0
    for time_s in times:
        while at < len(steps) and steps[at][0] <= time_s:
            under_way += steps[at][1]
            at += 1
        found.append(under_way)
    return found
