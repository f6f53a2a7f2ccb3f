from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from modelmq.events import Event, RequestFailed, WorkDropped
from modelmq.worker.drops import Drops


class Origin:
    def __init__(self) -> None:
        self.done: list[tuple[str, str]] = []
        self.flushes = 0

    def settle(self, delivery: Any, reply_to: str, answer: Any) -> None:
        self.done.append((reply_to, answer.code))

    def flush(self, *, at_once: bool = False) -> None:
        self.flushes += 1


def test_the_withdrawn_and_the_late_are_settled_and_counted_apart(delivery: Any) -> None:
    events: list[Event] = []
    drops = Drops(SimpleNamespace(name="m", version="1"), events.append)  # type: ignore[arg-type]
    drops.cost.ran(2, 0.2)
    origin = Origin()
    items: list[Any] = [
        SimpleNamespace(withdrawn=withdrawn, origin=origin, delivery=delivery(message_id=name), reply_to=name)
        for name, withdrawn in (("a", True), ("b", False), ("c", True))
    ]
    assert drops.settle(items, spent_s=0.15) == {"cancelled": 2, "expired": 1}
    assert origin.done == [("a", "cancelled"), ("b", "expired"), ("c", "cancelled")]
    assert origin.flushes == 1
    assert [event.request_id for event in events if isinstance(event, RequestFailed)] == ["a", "b", "c"]
    told = {event.reason: (event.requests, event.saved_s) for event in events if isinstance(event, WorkDropped)}
    assert told == {"cancelled": (2, pytest.approx(0.1)), "expired": (1, pytest.approx(0.05))}


def test_nothing_dropped_is_nothing_made_and_nothing_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked before every batch."""
    events: list[Event] = []
    monkeypatch.delattr("modelmq.worker.answers.expired")
    assert Drops(SimpleNamespace(name="m", version="1"), events.append).settle([]) == {}  # type: ignore[arg-type]
    assert events == []
