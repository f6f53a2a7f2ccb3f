"""The requests that nobody waits for: what comes in later, or again, is known by them and not computed.

A cancel may overtake its request, which waits in the broker's queue while the cancel goes straight to every worker. So
each is remembered until the request's deadline, a bounded number of them. Pure; `now` in seconds of a monotonic clock.
"""

from __future__ import annotations

MOST_TOMBSTONES = 10_000
"""A flood of cancels makes the oldest ones forgotten: then requests are computed that nobody waits for, no more."""
LONGEST_S = 86_400.0
UNTOLD_S = 3_600.0
"""How long a cancel is remembered that tells no deadline."""

Name = tuple[str, str]
"""A request's reply address and its correlation id: who knows only one of them withdraws nothing."""


class Tombstones:
    """Names, each until its time, and addresses at which nobody is. The first word on a name holds."""

    def __init__(self, most: int = MOST_TOMBSTONES) -> None:
        self._most = most
        self._until_s: dict[Name, float] = {}
        self._gone: dict[str, None] = {}

    def __len__(self) -> int:
        return len(self._until_s)

    def add(self, name: Name, left_s: float | None, now: float) -> bool:
        """The request is withdrawn, and would end by itself after `left_s`; False when that is past or was known."""
        left_s = UNTOLD_S if left_s is None else min(left_s, LONGEST_S)
        if left_s <= 0 or self.holds(name, now):
            return False
        names = self._until_s
        names.pop(name, None)  # over: it takes its place at the end
        while names and (len(names) >= self._most or names[next(iter(names))] <= now):
            del names[next(iter(names))]
        names[name] = now + left_s
        return True

    def add_address(self, address: str) -> None:
        """Nobody is there, nor will be: an address that is made anew for each connection."""
        self._gone[address] = None
        if len(self._gone) > self._most:
            del self._gone[next(iter(self._gone))]

    def holds(self, name: Name, now: float) -> bool:
        """Whether this request was withdrawn, or who asked is gone."""
        if name[0] in self._gone:
            return True
        until_s = self._until_s.get(name)
        return until_s is not None and until_s > now
