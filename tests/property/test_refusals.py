"""When a refusing channel is replaced, in virtual time."""

from __future__ import annotations

from itertools import accumulate, pairwise

from hypothesis import given
from hypothesis import strategies as st

from modelmq.client.refusals import PAUSE_S, Refusals

FIRST_S, LONGEST_S = PAUSE_S


@given(st.lists(st.floats(0.001, 0.5), min_size=1, max_size=400))
def test_a_queue_that_takes_nothing_has_another_channel_soon_and_then_ever_less_often(pauses: list[float]) -> None:
    refusals, now_s, due_s = Refusals(), 0.0, [0.0]
    for pause in pauses:
        now_s += pause
        if refusals.refused("q", now_s):
            due_s.append(now_s)
    between = [later - earlier for earlier, later in pairwise(due_s)]
    assert all(min(FIRST_S * 2**number, LONGEST_S) <= each for number, each in enumerate(between))
    # The first refusal after a replacement begins the next wait.
    longest = [min(FIRST_S * 2**number, LONGEST_S) + 2 * 0.5 for number in range(len(between) + 1)]
    assert all(each <= most for each, most in zip(between, longest, strict=False))
    assert now_s - due_s[-1] <= longest[-1]


@given(st.lists(st.floats(0.001, 0.9), min_size=1, max_size=100))
def test_one_that_takes_something_now_and_then_is_full_and_keeps_its_channel(pauses: list[float]) -> None:
    refusals, now_s = Refusals(), 0.0
    for pause in pauses:
        refusals.taken("q")
        assert not refusals.refused("q", now_s)
        now_s += pause
        assert not refusals.refused("q", now_s)


def test_what_one_queue_takes_says_nothing_of_another() -> None:
    refusals = Refusals()
    assert not refusals.refused("q", 0.0)
    refusals.taken("other")
    assert refusals.refused("q", FIRST_S)


@given(st.floats(0.0, 1e6), st.floats(LONGEST_S, 1e6, exclude_min=True))
def test_what_was_refused_long_ago_does_not_count(first_s: float, later_s: float) -> None:
    refusals = Refusals()
    assert not refusals.refused("q", first_s)
    assert not refusals.refused("q", first_s + later_s + 1.0)
    assert refusals.refused("q", first_s + later_s + 1.0 + 2 * FIRST_S)


@given(st.lists(st.floats(0.0, 3.0), min_size=1, max_size=300))
def test_queues_that_refuse_once_are_forgotten(pauses: list[float]) -> None:
    refusals, times = Refusals(), list(accumulate(pauses))
    refusals._pause_s = 1e9  # none is ever due, which would forget all
    for number, now_s in enumerate(times):
        refusals.refused(f"q{number}", now_s)
    assert list(refusals._refusing) == [f"q{n}" for n, at_s in enumerate(times) if times[-1] - at_s <= LONGEST_S]


def test_of_another_channel_nothing_is_known() -> None:
    refusals = Refusals()
    assert not refusals.refused("q", 0.0)
    refusals.replaced()
    assert not refusals.refused("q", FIRST_S)
    assert refusals.refused("q", 2 * FIRST_S)
