from __future__ import annotations

import pytest

from modelmq.client.window import LIMIT, Windows


@pytest.fixture
def windows() -> Windows:
    return Windows(LIMIT, patience_s=1.0)


def test_a_queue_owes_no_more_confirms_than_it_may(windows: Windows) -> None:
    for _ in range(LIMIT):
        assert windows.open("a")
        windows.sent("a", 0.0)
    assert not windows.open("a")
    assert windows.open("b")
    windows.settled("a", 0.0)
    assert windows.open("a")


def test_what_owes_nothing_is_not_kept(windows: Windows) -> None:
    for number in range(1000):
        windows.sent(f"m{number}", 0.0)
        windows.settled(f"m{number}", 0.0)
        windows.settled(f"m{number}", 0.0)
    assert len(windows) == 0


def test_a_queue_that_confirms_nothing_is_refused_after_a_while(windows: Windows) -> None:
    windows.sent("a", 0.0)
    assert not windows.refuses("a", 0.9)
    assert not windows.refuses("a", 1.0)  # a trial
    windows.sent("a", 1.0)
    assert windows.refuses("a", 1.1)
    assert not windows.refuses("b", 1.1)
    assert windows.refuses("a", 1.9)
    assert not windows.refuses("a", 2.0)  # the next one


def test_a_confirm_ends_that(windows: Windows) -> None:
    for _ in range(LIMIT):
        windows.sent("a", 0.0)
    assert windows.refuses("a", 100.0)  # no place is left for a trial
    windows.settled("a", 100.0)
    assert not windows.refuses("a", 100.5)


def test_a_slow_queue_is_not_one_that_confirms_nothing(windows: Windows) -> None:
    windows.sent("a", 0.0)
    for second in range(1, 20):
        windows.sent("a", second - 0.1)
        windows.settled("a", second - 0.1)
        assert not windows.refuses("a", float(second))


def test_without_a_limit_nothing_is_counted() -> None:
    windows = Windows(None, patience_s=1.0)
    for _ in range(1000):
        windows.sent("a", 0.0)
    assert windows.open("a")
    assert not windows.refuses("a", 100.0)
    assert len(windows) == 0
