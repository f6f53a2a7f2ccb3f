from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from modelmq.amqp.properties import encode_properties
from modelmq.errors import Retry
from modelmq.protocol import error_message
from modelmq.runtimes import ModelSettings, ModelSource
from modelmq.worker import retry
from modelmq.worker.intake import Clock
from modelmq.worker.item import WorkItem
from modelmq.worker.outcome import Answer, Later, Outcome
from modelmq.worker.wire import Raised

SOURCE = ModelSource("m", "2", Path("models/m/2/model.py"), ModelSettings(max_retries=3))
NOW = Clock(1000.0, 5_000_000.0)
NOW_MS = 5_000_000_000
LATER = Later((844, 1266), NOW_MS + 60_000, 2, NOW_MS)
RECORD = {"at": 5, "delay_ms": 250, "error": "busy"}


@pytest.fixture
def answered(delivery):
    def make(after_s: float, *, left_s: float = 60.0, draw: float = 0.0, why: str = "busy", **headers: Any) -> Answer:
        item = WorkItem(
            origin=None,  # type: ignore[arg-type] - an answer is made without looking where it goes
            delivery=delivery(headers=headers or None),
            lane="interactive",
            reply_to="",
            request_id=None,
            inputs={},
            outputs=(),
            rows=1,
            key=None,
            received_s=990.0,
            deadline_s=NOW.monotonic_s + left_s,
        )
        return retry.answer(item, Raised("failed", why, after_s), SOURCE, NOW, draw)

    return make


def test_put_off_by_at_least_what_was_asked(answered) -> None:
    answer = answered(0.8)
    assert (answer.outcome, answer.error) == (Outcome.RETRIED, "busy")
    assert answer.later == Later((844, 1266, 1899, 2848), NOW_MS + 60_000, 1, NOW_MS)


@pytest.mark.parametrize(("draw", "first"), [(0.0, 844), (0.49, 844), (0.5, 1266), (0.99, 1266)])
def test_jitter_is_one_rung(answered, draw: float, first: int) -> None:
    assert answered(0.8, draw=draw).later.rungs_ms[0] == first


@pytest.mark.parametrize("draw", [0.0, 0.99])
def test_neither_jitter_nor_room_is_looked_for_beyond_the_deadline(answered, draw: float) -> None:
    assert answered(0.8, left_s=1.0, draw=draw).later.rungs_ms == (844,)


def test_what_would_come_too_late_is_told_at_once(answered) -> None:
    answer = answered(0.8, left_s=0.8, retries=1)
    assert (answer.outcome, answer.code) == (Outcome.EXPIRED, "expired")
    assert "in 0.8 s, but the request's deadline comes sooner. It was try 2, and it said: busy" in answer.error
    assert error_message(answer.body) == answer.error


def test_the_last_try_is_the_end(answered) -> None:
    assert answered(0.8, retries=2).later.retries == 3
    answer = answered(0.8, retries=3)
    assert (answer.outcome, answer.code, answer.reason) == (Outcome.DEAD, "dead", "retries_exhausted")
    assert answer.attempts == 4
    assert "each of the 4 times" in answer.error
    assert "busy" in answer.error


def test_a_model_that_gives_no_reason(answered) -> None:
    assert answered(0.8, why="").error == "it did not say why"


@pytest.mark.parametrize("forged", [-1, "7", 2.5, True, None, 2**60, [1]])
def test_what_a_caller_makes_of_the_count_is_no_count(answered, forged: object) -> None:
    assert answered(0.8, retries=forged).later.retries == 1


def test_the_copy_is_the_request_with_its_history(delivery) -> None:
    sent = {
        "content_type": "application/json",
        "content_encoding": "identity",
        "correlation_id": "c",
        "reply_to": "amq.gen-me",
        "message_id": "m",
        "type": "t",
        "app_id": "a",
        "timestamp": datetime(2026, 1, 2, tzinfo=UTC),
    }
    headers = {
        "deadline": 7,
        "mine": "kept",
        "retries": 1,
        "retry-rung": "250",
        "retry-history": [RECORD],
        "x-death": [],
    }
    made = delivery(b"body", routing_key="m.1.bulk", headers=headers, expiration="9", delivery_mode=1, **sent)
    letter = retry.copy_of(made, "busy again", LATER)
    assert (letter.exchange, letter.routing_key, letter.body) == ("ml-retry-exchange", "m.1.bulk", b"body")
    assert {name: getattr(letter.properties, name) for name in sent} == sent
    assert (letter.properties.delivery_mode, letter.properties.expiration) == (2, None)
    assert letter.properties.headers == {
        "deadline": 7,
        "mine": "kept",
        "retries": 2,
        "retry-rung": "844",
        "retry-history": [RECORD, {"at": NOW_MS, "delay_ms": 844, "error": "busy again"}],
    }
    encode_properties(letter.properties)


@pytest.mark.parametrize("headers", [None, {"deadline": None}])
def test_a_deadline_that_was_reckoned_is_absolute_from_now_on(delivery, headers: dict[str, None] | None) -> None:
    letter = retry.copy_of(delivery(headers=headers), "busy", LATER)
    assert letter.properties.headers is not None
    assert letter.properties.headers["deadline"] == NOW_MS + 60_000


@pytest.mark.parametrize(
    "forged",
    [
        "no list",
        [{"at": 1}],
        [{"at": "1", "delay_ms": 1, "error": ""}],
        [{"at": -1, "delay_ms": 1, "error": ""}],
        [{"at": 1, "delay_ms": 2**60, "error": ""}],
        [None, 3, [RECORD]],
    ],
)
def test_what_is_no_record_is_not_carried_along(delivery, forged: object) -> None:
    letter = retry.copy_of(delivery(headers={"retry-history": forged}), "busy", LATER)
    assert letter.properties.headers is not None
    assert [each["error"] for each in letter.properties.headers["retry-history"]] == ["busy"]


def test_a_history_is_bounded(delivery) -> None:
    told = [{**RECORD, "error": "x" * 5000, "more": "y"}] * 100
    letter = retry.copy_of(delivery(headers={"retry-history": told}), "z" * 5000, LATER)
    assert letter.properties.headers is not None
    history = letter.properties.headers["retry-history"]
    assert [each["error"] for each in history] == ["x" * 200] * 19 + ["z" * 200]
    assert all(each.keys() == {"at", "delay_ms", "error"} for each in history)


def test_properties_that_cannot_be_read_have_no_history(delivery) -> None:
    broken = delivery(raw=b"\x20\x00\x00\x00\x00\x05abc")
    assert (retry.retries_of(broken), retry.history_of(broken)) == (0, [])


def test_the_models_word_is_a_delay() -> None:
    assert (Retry(5).after_s, str(Retry(5, "busy"))) == (5.0, "busy")


@pytest.mark.parametrize("after_s", [0, -1, float("nan"), float("inf")])
def test_a_delay_that_is_none(after_s: float) -> None:
    with pytest.raises(ValueError, match="must be a finite number of seconds above 0"):
        Retry(after_s)
