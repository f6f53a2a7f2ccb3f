from __future__ import annotations

import io
import sys

import pytest

from modelmq.events import Event, ServiceStarted
from modelmq.observe import JsonLog, fan_out

STARTED = ServiceStarted("gateway")


def test_everybody_hears_every_event_in_order() -> None:
    heard: list[tuple[str, Event]] = []
    emit = fan_out(lambda event: heard.append(("a", event)), lambda event: heard.append(("b", event)))
    emit(STARTED)
    assert heard == [("a", STARTED), ("b", STARTED)]


def test_nobody_is_fine() -> None:
    fan_out()(STARTED)


def test_a_broken_subscriber_is_told_once_and_breaks_nobody(capsys: pytest.CaptureFixture[str]) -> None:
    heard: list[Event] = []

    def broken(event: Event) -> None:
        raise OSError("disk full")

    emit = fan_out(broken, heard.append)
    for _ in range(3):
        emit(STARTED)
    assert heard == [STARTED] * 3
    assert capsys.readouterr().err.count("OSError: disk full") == 1


def test_a_closed_standard_error_breaks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stderr", closed)
    fan_out(JsonLog(closed, "debug", "worker"))(STARTED)
