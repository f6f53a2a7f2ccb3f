from __future__ import annotations

from datetime import UTC, datetime

from modelmq.worker.dead_letter import REASON, copy_of
from modelmq.worker.outcome import Answer, Outcome

ANSWER = Answer(Outcome.DEAD, b"{}", "dead", "It ended the process.", attempts=3)
NOW_S = 1_767_312_000.25


def test_the_copy_is_the_request_with_reason_attempts_and_error(delivery) -> None:
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
    made = delivery(b"body", routing_key="m.1", headers={"deadline": 5, "mine": "kept"}, **sent)
    letter = copy_of(made, ANSWER, NOW_S)
    assert (letter.exchange, letter.routing_key, letter.body) == ("ml-dead-letter-exchange", "m.1", b"body")
    assert {name: getattr(letter.properties, name) for name in sent} == sent
    assert letter.properties.headers == {
        "deadline": 5,
        "mine": "kept",
        "reason": REASON,
        "attempts": 3,
        "error": "It ended the process.",
        "died-at": 1_767_312_000_250,
    }


def test_it_is_kept_on_disk_and_never_expires(delivery) -> None:
    properties = copy_of(delivery(expiration="1000", delivery_mode=1, priority=9), ANSWER, NOW_S).properties
    assert (properties.delivery_mode, properties.expiration, properties.priority) == (2, None, None)


def test_the_brokers_own_headers_are_not_carried_over(delivery) -> None:
    headers = copy_of(delivery(headers={"x-death": [], "x-delivery-count": 7}), ANSWER, NOW_S).properties.headers
    assert headers is not None
    assert not [name for name in headers if name.startswith("x-")]


def test_the_callers_words_cannot_pass_for_ours(delivery) -> None:
    headers = copy_of(delivery(headers={"reason": "forged", "attempts": 0}), ANSWER, NOW_S).properties.headers
    assert headers is not None
    assert (headers["reason"], headers["attempts"]) == (REASON, 3)


def test_a_long_error_is_cut(delivery) -> None:
    headers = copy_of(delivery(), Answer(Outcome.DEAD, error="x" * 5000), NOW_S).properties.headers
    assert headers is not None
    assert len(headers["error"]) == 1000


def test_the_delivery_itself_is_left_as_it_came(delivery) -> None:
    made = delivery(headers={"mine": 1})
    copy_of(made, ANSWER, NOW_S)
    assert made.properties.headers == {"mine": 1}


def test_it_goes_to_no_other_queue_that_its_caller_named(delivery) -> None:
    made = delivery(headers={"CC": ["other"], "BCC": ["another"], "mine": 1})
    headers = copy_of(made, ANSWER, NOW_S).properties.headers
    assert headers is not None
    assert headers.keys() == {"mine", "reason", "attempts", "error", "died-at"}
