"""The ladder of delays: from 0.25 s to 10 min, no step larger than half, and never shorter than asked."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from modelmq.retry_ladder import RUNGS_MS, at_least, queue_of


def test_from_a_quarter_of_a_second_to_ten_minutes() -> None:
    assert (RUNGS_MS[0], RUNGS_MS[-1], len(RUNGS_MS)) == (250, 600_000, 21)
    assert all(low < high <= low * 1.5 + 1 for low, high in pairwise(RUNGS_MS))
    assert [queue_of(RUNGS_MS[0]), queue_of(RUNGS_MS[-1])] == ["ml-retry.250", "ml-retry.600000"]


@given(st.floats(0, 600, exclude_min=True))
def test_rounded_up_and_by_no_more_than_half(after_s: float) -> None:
    rungs = at_least(after_s)
    assert rungs == RUNGS_MS[len(RUNGS_MS) - len(rungs) :]
    assert rungs[0] >= after_s * 1000
    assert rungs[0] <= max(250, after_s * 1500 + 1)


@given(st.floats(600, 1e300))
def test_above_the_ladder_there_is_its_last_rung(after_s: float) -> None:
    assert at_least(after_s) == (600_000,)
