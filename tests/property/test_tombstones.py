"""Withdrawn requests in virtual time: never more than may be, none that was not withdrawn, none beyond its time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from modelmq.worker.tombstones import LONGEST_S, UNTOLD_S, Name, Tombstones

NAMES = st.tuples(st.sampled_from(["a", "b", ""]), st.sampled_from(["1", "2", "3", "a"]))
LEFT_S = st.one_of(st.none(), st.sampled_from([-1.0, 0.0, 0.5, 3.0, 10.0, 1e18, float("inf")]))
STEPS = st.lists(st.tuples(st.sampled_from([0.0, 0.5, 1.0, 4.0, UNTOLD_S]), NAMES, LEFT_S), max_size=60)


def until_s(left_s: float | None, now: float) -> float:
    return now + (UNTOLD_S if left_s is None else min(left_s, LONGEST_S))


@given(STEPS)
def test_with_room_enough_a_name_is_held_from_its_first_cancel_until_the_time_that_told(
    steps: list[tuple[float, Name, float | None]],
) -> None:
    tombstones, model, now = Tombstones(), dict[Name, float](), 0.0
    for passed_s, name, left_s in steps:
        now += passed_s
        news = not model.get(name, now) > now and until_s(left_s, now) > now
        assert tombstones.add(name, left_s, now) is news
        if news:
            model[name] = until_s(left_s, now)
        for each in {*model, ("a", "2"), ("2", "a")}:
            assert tombstones.holds(each, now) is (model.get(each, now) > now)
        assert len(tombstones) <= len(model)


@given(STEPS, st.integers(1, 4))
def test_there_are_never_more_than_may_be_and_the_last_ones_are_held(
    steps: list[tuple[float, Name, float | None]], most: int
) -> None:
    tombstones, now = Tombstones(most), 0.0
    added: list[tuple[Name, float]] = []
    for passed_s, name, left_s in steps:
        now += passed_s
        if tombstones.add(name, left_s, now):
            added.append((name, until_s(left_s, now)))
        assert len(tombstones) <= most
        assert all(tombstones.holds(each, now) for each, until in added[-most:] if until > now)


def test_a_flood_costs_the_oldest_and_no_memory() -> None:
    tombstones = Tombstones()
    for number in range(30_000):
        tombstones.add(("flood", str(number)), None, 0.0)
    assert len(tombstones) == 10_000
    assert not tombstones.holds(("flood", "19999"), 0.0)
    assert tombstones.holds(("flood", "20000"), 0.0)


def test_an_address_that_is_gone_takes_all_its_requests_along_and_no_others() -> None:
    tombstones = Tombstones(most=3)
    for address in "abcd":
        tombstones.add_address(address)
    assert [tombstones.holds((address, "1"), 1e9) for address in "abcdx"] == [False, True, True, True, False]
    assert not tombstones.holds(("1", "b"), 0.0)
