"""Refusals for overload, summed up per model: thousands a second are one line of the log, not thousands. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from modelmq.events import RequestsRefused

EVERY_S = 1.0
_MOST_MODELS = 1000


class Refusals:
    """What was refused since the last line."""

    def __init__(self, now_s: float) -> None:
        self._since_s = now_s
        self._by_model: dict[str, tuple[int, str]] = {}

    def add(self, model: str, why: str) -> None:
        """One more. Names that callers invent are not told apart once there are many."""
        if model not in self._by_model and len(self._by_model) >= _MOST_MODELS:
            model = ""
        count, _ = self._by_model.get(model, (0, ""))
        self._by_model[model] = count + 1, why

    def due(self, now_s: float) -> Sequence[RequestsRefused]:
        """What is to be told, once a second; nothing when nothing was refused."""
        seconds = now_s - self._since_s
        if seconds < EVERY_S:
            return ()
        told = [RequestsRefused(model, count, seconds, why) for model, (count, why) in self._by_model.items()]
        self._by_model, self._since_s = {}, now_s
        return told
