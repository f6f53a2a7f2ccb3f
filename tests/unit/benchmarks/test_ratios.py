from __future__ import annotations

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.ratios import Spread, Target, paired_ratios, percentile, spread

amounts = st.lists(st.floats(min_value=0.001, max_value=1e9), min_size=1, max_size=50)


def test_a_percentile_lies_between_neighbours() -> None:
    assert percentile([4, 1, 3, 2], 0.5) == 2.5
    assert percentile([1, 2, 3, 4, 5], 0.5) == 3
    assert percentile([10, 20], 0.99) == pytest.approx(19.9)
    assert percentile([7], 0.3) == 7


def test_the_ends_are_smallest_and_largest() -> None:
    assert percentile([3, 1, 2], 0) == 1
    assert percentile([3, 1, 2], 1) == 3


@pytest.mark.parametrize(("values", "fraction"), [([], 0.5), ([1.0], -0.1), ([1.0], 1.1)])
def test_a_percentile_of_nothing_or_outside_zero_to_one_is_refused(values: list[float], fraction: float) -> None:
    with pytest.raises(ValueError, match=r"percentile|fraction"):
        percentile(values, fraction)


@given(amounts)
def test_the_median_is_the_median(values: list[float]) -> None:
    assert percentile(values, 0.5) == pytest.approx(statistics.median(values))


@given(amounts, st.floats(min_value=0, max_value=1), st.floats(min_value=0, max_value=1))
def test_percentiles_rise_and_stay_inside(values: list[float], one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert min(values) <= percentile(values, low) <= percentile(values, high) <= max(values)


def test_a_spread_shows_the_middle_and_both_ends() -> None:
    assert spread([5, 1, 9]) == Spread(5, 1, 9)


def test_each_round_gives_its_own_ratio() -> None:
    assert paired_ratios([10, 40], [5, 10]) == [2, 4]


@given(amounts)
def test_equal_sides_have_ratio_one_whatever_the_mood_of_the_machine(values: list[float]) -> None:
    assert paired_ratios(values, values) == [1] * len(values)


@pytest.mark.parametrize(("ours", "rival"), [([1.0], [1.0, 2.0]), ([], []), ([1.0, 2.0], [1.0])])
def test_rounds_must_pair_up(ours: list[float], rival: list[float]) -> None:
    with pytest.raises(ValueError, match="pair up"):
        paired_ratios(ours, rival)


def test_a_rival_that_did_nothing_gives_no_ratio() -> None:
    with pytest.raises(ValueError, match="above zero"):
        paired_ratios([1, 1], [1, 0])


def test_a_target_includes_its_bound() -> None:
    assert Target("at least", 3).met_by(3)
    assert not Target("at least", 3).met_by(2.999)
    assert Target("at most", 2).met_by(2)
    assert not Target("at most", 2).met_by(2.001)
    assert str(Target("at most", 2)) == "at most 2"
