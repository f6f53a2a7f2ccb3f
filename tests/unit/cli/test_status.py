from __future__ import annotations

import pytest

from modelmq.broker.management_values import QueueInfo
from modelmq.cli.status import LettersStatus, letters_in

LIMITS = {"max-length": 10, "max-length-bytes": 1000}


def queue(name: str, ready: int, ready_bytes: int = 0, definition: object = LIMITS) -> QueueInfo:
    return QueueInfo(
        name,
        durable=True,
        auto_delete=False,
        messages_ready=ready,
        message_bytes_ready=ready_bytes,
        effective_policy_definition=definition,
    )


@pytest.mark.parametrize(
    ("ready", "ready_bytes", "full"),
    [(0, 0, False), (9, 0, False), (10, 0, True), (11, 0, True), (4, 800, False), (4, 804, True), (1, 1000, True)],
)
def test_a_queue_is_full_when_one_more_letter_would_push_the_oldest_out(
    ready: int, ready_bytes: int, full: bool
) -> None:
    assert letters_in(queue("ml-dead-letter.m", ready, ready_bytes)) == LettersStatus("m", ready, 10, full)


@pytest.mark.parametrize("definition", [None, {}, [], {"max-length": "10"}])
def test_a_queue_without_bounds_is_never_full(definition: object) -> None:
    assert letters_in(queue("ml-expired", 99, 9999, definition)) == LettersStatus("@expired", 99, None, False)


def test_other_queues_hold_no_letters() -> None:
    assert letters_in(queue("ml-model.m.interactive", 99)) is None
