from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from modelmq.amqp import Delivery, Properties
from modelmq.amqp.properties import encode_properties
from modelmq.dead_letters.letter import Letter, Reader, is_place, place_of, queue_of

TIME = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
TOLD = {"reason": "model_process_died", "attempts": 3, "error": "It died.", "died-at": 17}


def read(headers: dict[str, Any] | None, place: str = "m", raw: bytes | None = None) -> Letter:
    delivery = Delivery(1, "tag", 1, False, "x", "m.1")
    delivery._filled(encode_properties(Properties(headers=headers)) if raw is None else raw, b"{}", 2)
    return Reader(place).read(delivery)


def death(reason: str, queue: str = "ml-model.m.interactive") -> dict[str, Any]:
    return {"reason": reason, "queue": queue, "time": TIME, "count": 1}


def test_what_a_worker_wrote() -> None:
    letter = read(TOLD)
    assert (letter.reason, letter.attempts, letter.error, letter.died_at_ms) == (
        "model_process_died",
        3,
        "It died.",
        17,
    )


def test_the_brokers_last_word_comes_before_what_a_caller_could_have_written() -> None:
    letter = read({**TOLD, "x-death": [death("delivery_limit"), death("expired")]})
    assert (letter.reason, letter.attempts, letter.error) == ("delivery_limit", None, "")
    assert letter.died_at_ms == int(TIME.timestamp() * 1000)


def test_the_end_of_a_delay_is_no_death() -> None:
    waited = death("expired", "ml-retry.250")
    assert read({**TOLD, "x-death": [waited]}).reason == "model_process_died"
    assert read({"x-death": [waited]}, "@unrouted").reason == "unrouted"
    assert read({"x-death": [death("rejected"), waited]}).reason == "rejected"


@pytest.mark.parametrize("headers", [None, {}, {"reason": 5, "attempts": "x", "died-at": True, "x-death": "no"}])
def test_headers_may_be_absent_or_of_another_kind(headers: dict[str, Any] | None) -> None:
    letter = read(headers)
    assert (letter.reason, letter.attempts, letter.died_at_ms, letter.deadline_ms) == ("unknown", None, None, None)


def test_properties_that_cannot_be_read_make_a_letter_too() -> None:
    letter = read(None, raw=b"\x20\x00\x00\x00\x00\x09")
    assert letter.reason == "unreadable"
    assert letter.error


@pytest.mark.parametrize("place", ["digits", "@expired", "@unrouted", "ml-expired"])
def test_places_and_queues(place: str) -> None:
    assert is_place(place)
    assert place_of(queue_of(place)) == place


def test_other_queues_are_no_places() -> None:
    assert place_of("ml-model.digits.interactive") is None
    assert not is_place("@other")
    assert not is_place("no/model")
