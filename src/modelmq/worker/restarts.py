"""How soon a model's process is started again, and when its queue is left to others.

A pure count of deaths without a success in between: the first restarts are quick, because one poisonous request costs
a few; many in a row mean that the model itself is broken. No clock is needed: success, not time, forgives.
"""

from __future__ import annotations

RESTART_DELAYS_S = (0.05, 2.0)
"""From the second death on, doubling from the first value to the last."""
RETRY_DELAYS_S = (1.0, 60.0)
"""The same for a model that failed."""


def most_deaths(max_batch_size: int, max_attempts: int) -> int:
    """So many in a row without one successful run between them, and the model counts as failed.

    One more than two poisonous requests of a batch can cause: the runs that halve it, then their attempts alone.
    """
    return (max_batch_size - 1).bit_length() + 2 * max_attempts + 1


class RestartCount:
    """Deaths and failures since the last success."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._deaths = 0
        self._failures = 0

    @property
    def exhausted(self) -> bool:
        """Whether the model is to be called failed."""
        return self._deaths >= self._most

    def succeeded(self) -> None:
        """A batch was computed."""
        self._deaths = self._failures = 0

    def died(self) -> float:
        """The process ended without being told to. Returns how long to wait before the next start."""
        self._deaths += 1
        return 0.0 if self._deaths == 1 else _doubled(RESTART_DELAYS_S, self._deaths - 2)

    def failed(self) -> float:
        """The model did not load, or is called failed. Returns how long to wait before the next try."""
        self._failures += 1
        self._deaths = 0
        return _doubled(RETRY_DELAYS_S, self._failures - 1)


def _doubled(delays_s: tuple[float, float], times: int) -> float:
    first_s, most_s = delays_s
    return min(most_s, first_s * 2.0 ** min(times, 30))
