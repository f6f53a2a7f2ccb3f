"""Which letters are meant: by id, reason and age, and at most so many. Pure."""

from __future__ import annotations

import re

import msgspec

from modelmq.dead_letters.letter import Letter
from modelmq.errors import ConfigError

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)?\Z")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_LONGEST_S = 100 * 365 * 86_400.0


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """All that is set must hold; nothing set means every letter. A letter of unknown age is neither old nor new."""

    ids: frozenset[str] = frozenset()
    reason: str | None = None
    older_than_s: float | None = None
    newer_than_s: float | None = None
    limit: int | None = None
    """The first so many in the order of the queue."""


class Picker:
    """Applies a selection to the letters of a queue in their order, as of one moment (Unix ms)."""

    def __init__(self, selection: Selection, now_ms: int) -> None:
        self._selection = selection
        self._now_ms = now_ms
        self.matched = 0
        """How many fit, those beyond the limit included."""

    def picks(self, letter: Letter) -> bool:
        """Whether this one is meant."""
        if not fits(letter, self._selection, self._now_ms):
            return False
        self.matched += 1
        limit = self._selection.limit
        return limit is None or self.matched <= limit


def fits(letter: Letter, selection: Selection, now_ms: int) -> bool:
    """Whether it is of the kind that is meant, the limit aside."""
    if selection.ids and letter.id not in selection.ids:
        return False
    if selection.reason is not None and letter.reason != selection.reason:
        return False
    if selection.older_than_s is None and selection.newer_than_s is None:
        return True
    if letter.died_at_ms is None:
        return False
    age_s = (now_ms - letter.died_at_ms) / 1000
    older, newer = selection.older_than_s, selection.newer_than_s
    return (older is None or age_s >= older) and (newer is None or age_s < newer)


def duration_s(text: str, flag: str) -> float:
    """Seconds of `90`, `90s`, `15m`, `2h`, `7d`, `1w` or `500ms`. Raises ConfigError, which names the flag."""
    found = _DURATION.match(text.strip())
    seconds = float(found[1]) * _SECONDS[found[2] or "s"] if found and len(text) < 40 else -1.0
    if not 0 <= seconds <= _LONGEST_S:
        raise ConfigError(f'{flag} takes a time such as 90s, 15m, 2h or 7d, not "{text[:40]}".')
    return seconds
