from __future__ import annotations

import random

import pytest

from modelmq.worker.capacity import SLICES, Capacity


def busy(capacity: Capacity, batches: int, count: int, seconds: float, *, since_s: float = 0.0) -> float:
    """Full batches one after the other, all there from the start; when the last one ended."""
    for number in range(batches):
        capacity.finished(count, since_s, since_s + (number + 1) * seconds, full=True)
    return since_s + batches * seconds


def test_nothing_is_known_before_it_was_busy() -> None:
    capacity = Capacity()
    assert capacity.per_s == 0
    capacity.finished(8, 0.0, 0.05, full=True)
    assert capacity.per_s == 0


def test_it_is_what_is_done_per_busy_second() -> None:
    capacity = Capacity()
    busy(capacity, 10, 8, 0.02)
    assert capacity.per_s == pytest.approx(400)


def test_idle_time_does_not_count() -> None:
    capacity = Capacity()
    for minute in range(3):
        capacity.finished(1, minute * 60.0, minute * 60.0 + 0.2, full=True)
    assert capacity.per_s == pytest.approx(5)


def test_small_batches_tell_nothing() -> None:
    capacity = Capacity()
    ended_s = busy(capacity, 10, 8, 0.02)
    for number in range(100):
        capacity.finished(1, ended_s + number, ended_s + number + 0.02, full=False)
    assert capacity.per_s == pytest.approx(400)


def test_small_batches_that_are_faster_than_what_is_known_end_a_stall() -> None:
    """Who is refused for what is known fills no batches, so that nothing else could."""
    capacity = Capacity()
    ended_s = busy(capacity, SLICES, 8, 0.5)
    assert capacity.per_s == pytest.approx(16)
    for number in range(200):
        capacity.finished(4, ended_s + number, ended_s + number + 0.01, full=False)
    assert capacity.per_s == pytest.approx(400)


@pytest.mark.parametrize("seed", range(20))
def test_the_fast_ones_among_small_batches_do_not_make_a_model_faster(seed: int) -> None:
    capacity, chance = Capacity(), random.Random(seed)
    ended_s = busy(capacity, SLICES, 8, 0.08)
    for number in range(5000):
        began_s = ended_s + 10.0 * number
        capacity.finished(1, began_s, began_s + chance.expovariate(1 / 0.02), full=False)
    assert capacity.per_s == pytest.approx(100)


def test_small_batches_alone_tell_nothing() -> None:
    capacity = Capacity()
    for number in range(200):
        capacity.finished(4, float(number), number + 0.01, full=False)
    assert capacity.per_s == 0


def test_the_wait_for_the_batch_before_is_not_this_ones() -> None:
    capacity = Capacity()
    capacity.finished(1, 0.0, 1.0, full=False)
    capacity.finished(8, 0.1, 1.2, full=True)
    assert capacity.per_s == pytest.approx(40)


@pytest.mark.parametrize("seconds", [0.02, 2.0])
def test_a_stall_is_forgotten(seconds: float) -> None:
    capacity = Capacity()
    ended_s = busy(capacity, 50, 8, seconds)
    capacity.finished(8, ended_s, ended_s + 100.0, full=True)
    assert capacity.per_s < 0.5 * 8 / seconds
    busy(capacity, max(SLICES, int(1.3 / seconds)), 8, seconds, since_s=ended_s + 100.0)
    assert capacity.per_s == pytest.approx(8 / seconds)


def test_what_was_not_computed_to_the_end_tells_nothing_and_does_not_hide_what_the_rest_tells() -> None:
    capacity = Capacity()
    ended_s = busy(capacity, SLICES, 8, 80.0)  # a stall
    assert capacity.per_s < 1
    for _ in range(150):
        capacity.finished(1, ended_s, ended_s + 0.01, full=False)
        ended_s += 0.01 + 12.0
        capacity.passed(ended_s)
    assert capacity.per_s == pytest.approx(100)
