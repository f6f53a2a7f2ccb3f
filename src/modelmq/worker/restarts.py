"""How soon a model's process is started again, and when its queue is left to others.

A pure count of deaths without a success in between: the first restarts are quick, because one poisonous request costs
a few; many in a row mean that the model itself is broken. `now` is not needed: success, not time, forgives.
"""

from __future__ import annotations

import msgspec

MAX_DEATHS_IN_A_ROW = 24
"""So many deaths without one successful run between them, and the model counts as failed."""


class RestartPolicy(msgspec.Struct, frozen=True):
    """Delays double from the first value to the last, in seconds."""

    first_delay_s: float = 0.05
    max_delay_s: float = 2.0
    failed_first_delay_s: float = 1.0
    failed_max_delay_s: float = 60.0
    max_deaths: int = MAX_DEATHS_IN_A_ROW


class RestartCount:
    """Deaths and failed loads since the last success."""

    def __init__(self, policy: RestartPolicy = RestartPolicy()) -> None:
        self._policy = policy
        self._deaths = 0
        self._failures = 0

    @property
    def exhausted(self) -> bool:
        """Whether the model is to be called failed."""
        return self._deaths >= self._policy.max_deaths

    def succeeded(self) -> None:
        """A batch was computed."""
        self._deaths = self._failures = 0

    def died(self) -> float:
        """The process ended while it ran a batch. Returns how long to wait before the next start."""
        self._deaths += 1
        if self._deaths == 1:
            return 0.0
        return _doubled(self._policy.first_delay_s, self._deaths - 2, self._policy.max_delay_s)

    def failed(self) -> float:
        """The model did not load, or is called failed. Returns how long to wait before the next try."""
        self._failures += 1
        self._deaths = 0
        return _doubled(self._policy.failed_first_delay_s, self._failures - 1, self._policy.failed_max_delay_s)


def _doubled(first_s: float, times: int, most_s: float) -> float:
    return min(most_s, first_s * 2.0 ** min(times, 30))
