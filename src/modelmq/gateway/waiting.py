"""The requests that wait for an answer, by model: so that those of a model that nobody serves any more are given up.

Stands around the asking. Costs a request two set operations; looks at nothing unless the registry gave a model up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from modelmq.errors import Unavailable

T = TypeVar("T")

LEAST_S = 1.0
"""So long every request may wait: the broker must have time to say that it knows no such model."""
_RETRY_AFTER_S = 1.0


class _Asking:
    __slots__ = ("given_up", "since_s", "task")

    def __init__(self, task: asyncio.Task[object], since_s: float) -> None:
        self.task = task
        self.since_s = since_s
        self.given_up = ""


class Waiting:
    """All requests under way. Made where the loop runs."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._by_model: dict[str, set[_Asking]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def of(self, model: str) -> int:
        """How many of them wait for this model."""
        askings = self._by_model.get(model)
        return len(askings) if askings is not None else 0

    async def until(self, answer: Awaitable[T], model: str, now_s: float) -> T:
        """The answer. Raises Unavailable when the model is given up first."""
        task = asyncio.current_task(self._loop)  # named, because looking it up costs each request a system call
        if task is None:
            raise RuntimeError("Waiting happens in a task.")
        asking = _Asking(task, now_s)
        others = self._by_model.get(model)
        if others is None:
            others = self._by_model[model] = set()
        others.add(asking)
        self._count += 1
        try:
            return await answer
        except asyncio.CancelledError:
            if not asking.given_up or task.uncancel() > 0:  # the second: the client went away as well
                raise
            raise Unavailable(asking.given_up, retry_after_s=_RETRY_AFTER_S) from None
        finally:
            self._count -= 1
            others.discard(asking)
            if not others and self._by_model.get(model) is others:
                del self._by_model[model]

    def give_up(self, given_up: Callable[[str], str | None], now_s: float) -> None:
        """End what waits for a model of which `given_up` says why."""
        for model, askings in list(self._by_model.items()):
            why = given_up(model)
            if why is None:
                continue
            for asking in list(askings):
                if not asking.given_up and now_s - asking.since_s >= LEAST_S:
                    asking.given_up = why
                    asking.task.cancel()
