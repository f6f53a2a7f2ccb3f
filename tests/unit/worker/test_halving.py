from __future__ import annotations

import pytest

from modelmq.worker.halving import Halving


def test_a_batch_that_succeeds_is_run_once() -> None:
    plan = Halving("abcd", max_attempts=3)
    assert plan.next() == ("a", "b", "c", "d")
    plan.succeeded()
    assert plan.next() == ()
    assert plan.runs == 1


def test_an_empty_batch_is_not_run() -> None:
    plan: Halving[str] = Halving("", max_attempts=3)
    assert plan.next() == ()
    assert plan.runs == 0


def test_halves_are_run_in_the_order_of_their_requests() -> None:
    plan = Halving("abcde", max_attempts=3)
    plan.next()
    assert plan.raised() is None
    assert plan.next() == ("a", "b", "c")
    plan.succeeded()
    assert plan.next() == ("d", "e")


@pytest.mark.parametrize("culprit", range(64))
def test_one_culprit_among_64_is_found_in_at_most_13_runs(culprit: int) -> None:
    plan = Halving(range(64), max_attempts=3)
    guilty = []
    while part := plan.next():
        if culprit not in part:
            plan.succeeded()
        elif (found := plan.raised()) is not None:
            guilty.append(found)
    assert guilty == [culprit]
    assert plan.runs <= 13


def test_only_deaths_alone_count() -> None:
    plan = Halving("ab", max_attempts=2)
    plan.next()
    assert plan.died() is None
    assert plan.next() == ("a",)
    assert plan.attempts == 0
    assert plan.died() is None
    assert plan.next() == ("a",)
    assert plan.attempts == 1
    assert plan.died() == "a"
    assert plan.attempts == 2
    assert plan.next() == ("b",)
    assert plan.attempts == 0


def test_the_unwanted_are_dropped_before_they_are_run_again() -> None:
    plan = Halving("abcd", max_attempts=3)
    plan.next()
    plan.raised()
    assert sorted(plan.keep(lambda item: item not in "ac")) == ["a", "c"]
    assert (plan.next(), plan.next(), plan.next()) == (("b",), ("d",), ())


def test_giving_up_names_what_was_not_run_in_order() -> None:
    plan = Halving("abcd", max_attempts=3)
    plan.next()
    plan.raised()
    plan.next()
    assert plan.rest() == ["c", "d"]
    assert plan.next() == ()
