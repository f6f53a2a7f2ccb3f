"""Which deliveries to acknowledge with as few frames as the broker allows.

One frame for everything up to the oldest delivery still being worked on, one for each settled after it, so that an
answered message never waits unacknowledged behind a slow one. Pure; one tracker per consumer channel.
"""

from __future__ import annotations


class AckTracker:
    """Delivery tags of one channel, which the broker counts upwards from 1."""

    def __init__(self) -> None:
        self._open: dict[int, None] = {}  # a dict for its order
        self._settled: list[int] = []

    def delivered(self, tag: int) -> None:
        """A message came in."""
        self._open[tag] = None

    def settle(self, tag: int) -> None:
        """It is done with and may be acknowledged."""
        del self._open[tag]
        self._settled.append(tag)

    def forget(self, tag: int) -> None:
        """It went back to its queue: no acknowledgement may name it any more."""
        del self._open[tag]

    def take(self) -> list[tuple[int, bool]]:
        """(tag, multiple) for everything settled since the last call; the broker must hear them in this order."""
        settled = self._settled
        if not settled:
            return []
        self._settled = []
        oldest = next(iter(self._open), None)
        if oldest is None:
            return [(max(settled), len(settled) > 1)]
        before = [tag for tag in settled if tag < oldest]
        after = [(tag, False) for tag in settled if tag > oldest]
        return [(max(before), len(before) > 1), *after] if before else after
