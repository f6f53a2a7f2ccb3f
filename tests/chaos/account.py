"""What is left of a run beside the ledgers: the broker's queues, the processes, and which faults there were. Pure."""

from __future__ import annotations

import msgspec

AT_LEAST_IN_FLIGHT = 32
"""With fewer under way a fault does not count."""


class DeadLetter(msgspec.Struct, frozen=True):
    """One message of a dead-letter queue."""

    id: str
    model: str
    reason: str


class Account(msgspec.Struct, frozen=True):
    """The broker and the machine after the end."""

    letters: tuple[DeadLetter, ...] = ()
    expired: frozenset[str] = frozenset()
    """Ids of requests that the broker itself cleared away, long after their deadlines."""
    left: dict[str, int] = {}
    """Messages by queue, in all queues but those two kinds."""
    processes: tuple[str, ...] = ()
    """Command lines of what should have ended with the run."""


class Struck(msgspec.Struct, frozen=True):
    """A fault that was carried out. Times are of the ledger's clock."""

    number: int
    kind: str
    victim: str
    at: float
    until: float
    """When it was over: the process ready again, the link as before."""
    in_flight: int
    """Requests under way when it struck, as the callers told last."""
    lost: dict[str, int] = {}
    """Evidence: processes and connections that ended between `at` and `until`, what was refused meanwhile."""

    @property
    def counts(self) -> bool:
        """Whether it struck: enough was under way, and something was lost."""
        return self.in_flight >= AT_LEAST_IN_FLIGHT and sum(self.lost.values()) > 0
