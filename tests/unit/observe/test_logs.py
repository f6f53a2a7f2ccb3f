from __future__ import annotations

import io
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelmq.events import BatchFinished, Event, ModelLoadFailed, RequestAnswered, ServiceStarted
from modelmq.observe.logs import JsonLog, TextLog, open_log

NOON = datetime(2026, 1, 2, 12, 0, 0, 5000, tzinfo=UTC)
FAILED = RequestAnswered("r-1", "digits", "1", "failed", 0.12345678, "it raised")


def lines(log: type[JsonLog] | type[TextLog], *events: Event, level: Any = "debug") -> list[str]:
    stream = io.StringIO()
    write = log(stream, level, "gateway", lambda: NOON)
    for event in events:
        write(event)
    text = stream.getvalue()
    assert text == "" or text.endswith("\n")
    return text.split("\n")[:-1]


def test_a_json_line_has_time_level_service_event_and_the_fields() -> None:
    (line,) = lines(JsonLog, FAILED)
    assert json.loads(line) == {
        "time": "2026-01-02T12:00:00.005Z",
        "level": "warning",
        "service": "gateway",
        "event": "RequestAnswered",
        "request_id": "r-1",
        "model": "digits",
        "version": "1",
        "code": "failed",
        "duration_s": 0.123457,
        "error": "it raised",
    }


def test_a_text_line_reads_as_a_sentence_of_fields() -> None:
    (line,) = lines(TextLog, FAILED)
    assert line == (
        "2026-01-02T12:00:00.005Z WARNING gateway  RequestAnswered request_id=r-1 model=digits version=1 code=failed "
        'duration_s=0.123457 error="it raised"'
    )


def test_the_service_of_the_log_is_the_one_written() -> None:
    assert json.loads(lines(JsonLog, ServiceStarted("other", "x"))[0])["service"] == "gateway"


@pytest.mark.parametrize("log", [JsonLog, TextLog])
def test_what_is_below_the_level_is_left_out(log: type[JsonLog] | type[TextLog]) -> None:
    ok = RequestAnswered("r", "m", "1", "ok", 0.1)
    assert len(lines(log, ok, ServiceStarted("s"), FAILED, level="debug")) == 3
    assert len(lines(log, ok, ServiceStarted("s"), FAILED, level="info")) == 2
    assert len(lines(log, ok, ServiceStarted("s"), FAILED, level="warning")) == 1
    assert lines(log, FAILED, level="error") == []


@given(text=st.text())
def test_whatever_a_caller_sends_an_event_is_one_line(text: str) -> None:
    event = RequestAnswered(text, text, "1", "invalid", float("nan"), text)
    for log in (JsonLog, TextLog):
        assert len(lines(log, event)) == 1


@given(text=st.text(max_size=100))
def test_json_gives_the_text_back(text: str) -> None:
    assert json.loads(lines(JsonLog, ModelLoadFailed("m", "1", text))[0])["error"] == text


def test_a_lone_surrogate_is_written_all_the_same() -> None:
    assert json.loads(lines(JsonLog, ModelLoadFailed("m", "1", "\ud800"))[0])["error"] == "\ud800"


def test_a_long_text_is_cut() -> None:
    assert len(lines(JsonLog, ModelLoadFailed("m", "1", "x" * 100_000))[0]) < 3000


def test_nested_fields_are_json_in_both_forms() -> None:
    event = BatchFinished("m", "1", 2, 2, 1, 0.1, 0.0, {"succeeded": 2})
    assert json.loads(lines(JsonLog, event)[0])["outcomes"] == {"succeeded": 2}
    assert r'outcomes="{\"succeeded\":2}"' in lines(TextLog, event)[0]


def test_the_settings_choose_the_form() -> None:
    stream = io.StringIO()
    open_log(stream, "info", "json", "worker")(ServiceStarted("worker"))
    open_log(stream, "info", "text", "worker")(ServiceStarted("worker"))
    first, second = stream.getvalue().splitlines()
    assert json.loads(first)["event"] == "ServiceStarted"
    assert "INFO    worker   ServiceStarted" in second
