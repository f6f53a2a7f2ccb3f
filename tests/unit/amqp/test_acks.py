from __future__ import annotations

import pytest

from modelmq.amqp.acks import AckTracker


def tracker(*tags: int) -> AckTracker:
    made = AckTracker()
    for tag in tags:
        made.delivered(tag)
    return made


def test_nothing_settled_needs_no_frame() -> None:
    assert tracker(1, 2).take() == []


def test_one_settled_message_is_acknowledged_singly() -> None:
    acks = tracker(1)
    acks.settle(1)
    assert acks.take() == [(1, False)]


def test_the_contiguous_prefix_is_one_frame() -> None:
    acks = tracker(1, 2, 3, 4)
    for tag in (3, 1, 2):
        acks.settle(tag)
    assert acks.take() == [(3, True)]


def test_what_stands_behind_an_open_message_is_acknowledged_singly() -> None:
    acks = tracker(1, 2, 3, 4, 5)
    for tag in (1, 2, 4, 5):
        acks.settle(tag)
    assert acks.take() == [(2, True), (4, False), (5, False)]


def test_a_slow_message_holds_up_nobody() -> None:
    acks = tracker(*range(1, 1001))
    for tag in range(2, 1001):
        acks.settle(tag)
    assert acks.take() == [(tag, False) for tag in range(2, 1001)]
    acks.settle(1)
    assert acks.take() == [(1, False)], "the others are acknowledged already"


def test_everything_settled_is_one_frame() -> None:
    acks = tracker(7, 8, 9)
    for tag in (9, 8, 7):
        acks.settle(tag)
    assert acks.take() == [(9, True)]


def test_each_message_is_named_once() -> None:
    acks = tracker(1, 2)
    acks.settle(1)
    assert acks.take() == [(1, False)]
    assert acks.take() == []


def test_a_message_that_went_back_is_not_waited_for() -> None:
    acks = tracker(1, 2, 3)
    acks.forget(1)
    acks.settle(2)
    assert acks.take() == [(2, False)]


@pytest.mark.parametrize("verb", ["settle", "forget"])
def test_a_message_ends_once(verb: str) -> None:
    acks = tracker(1)
    acks.settle(1)
    with pytest.raises(KeyError):
        getattr(acks, verb)(1)
