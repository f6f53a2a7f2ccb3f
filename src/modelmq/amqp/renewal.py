"""Decides when an open connection is replaced, because what it was made of (login, certificates) has changed since.

Asked by `link` at each look: what was used, what is there now, and the time come in; what to do comes out. Pure: reads
no file and opens nothing.
"""

from __future__ import annotations

from collections.abc import Hashable
from math import inf
from typing import Literal

FIRST_DELAY_S = 1.0
MAX_DELAY_S = 30.0

Verdict = Literal["nothing", "renew", "tell"]
"""Renew: connect with what is there now. Tell: it cannot be used; say so, once."""


class Renewal:
    """Of one connection. All times are of one monotonic clock."""

    def __init__(self, used: Hashable) -> None:
        self._used = self._seen = used
        self._failures = 0
        self._not_before = -inf

    def look(self, found: Hashable, now: float, *, usable: bool = True) -> Verdict:
        """`found` is what is there now; of what cannot be read, `usable` false, the reason."""
        if found != self._seen:
            # It may be half written: only what two looks agree on is taken for what somebody meant.
            self._seen, self._failures, self._not_before = found, 0, -inf
            return "nothing"
        if found == self._used or now < self._not_before:
            return "nothing"
        if usable:
            return "renew"
        self._not_before = inf
        return "tell"

    def failed(self, now: float, chance: float) -> float:
        """What was there did not work; seconds until it is tried again, unless it changes before.

        `chance` (0 to 1) spreads many services over half of it.
        """
        delay_s = min(MAX_DELAY_S, FIRST_DELAY_S * 2.0 ** min(self._failures, 16)) * (0.5 + chance / 2)
        self._failures += 1
        self._not_before = now + delay_s
        return delay_s
