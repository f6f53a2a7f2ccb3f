"""Who asks what this worker serves, and who of them is answered now: an answer costs more than a question.

Every client may ask, so neither one of them nor many may keep a worker busy with telling. Who was answered lately and
asks as seldom as a gateway comes first. Pure; `now` in seconds of a monotonic clock.
"""

from __future__ import annotations

from modelmq.control import GONE_AFTER_S, HELLO_INTERVAL_S

MOST_KNOWN = 256
"""Addresses that are answered once in each interval whatever others do, and told of changes unasked."""
MOST_OTHERS = 256
"""Questions of strangers, and repeated ones, that are answered in an interval."""


class Askers:
    """Addresses, and when each was last answered."""

    def __init__(self) -> None:
        self._answered_s: dict[str, float] = {}
        self._interval_s = 0.0
        """When the present one began."""
        self._others = 0

    def may_be_answered(self, address: str, now: float) -> bool:
        """It asks; counts as answered where this is true."""
        if now - self._interval_s >= HELLO_INTERVAL_S:
            self._interval_s, self._others = now, 0
            self._forget_silent(now)
        last_s = self._answered_s.get(address)
        if last_s is None or last_s >= self._interval_s:
            if self._others >= MOST_OTHERS:
                return False
            self._others += 1
        if last_s is not None or len(self._answered_s) < MOST_KNOWN:
            self._answered_s[address] = now
        return True

    def lately(self, now: float) -> list[str]:
        """Who was answered within the time after which a gateway would be gone."""
        self._forget_silent(now)
        return list(self._answered_s)

    def forget(self, address: str) -> None:
        """Nobody is there."""
        self._answered_s.pop(address, None)

    def _forget_silent(self, now: float) -> None:
        oldest_s = now - GONE_AFTER_S
        self._answered_s = {address: at for address, at in self._answered_s.items() if at >= oldest_s}
