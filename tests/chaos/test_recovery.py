"""When a rate is back, told by the moments of the successes alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.chaos.account import Struck
from tests.chaos.ledger import Began, Invoke, Line, Outcome
from tests.chaos.recovery import recovered_after
from tests.chaos.run import with_in_flight

PER_S = 100.0
AT = 50.0


def steady(start: float, end: float) -> list[float]:
    count = int((end - start) * PER_S)
    return [start + number / PER_S for number in range(count)]


def test_a_fault_that_nobody_noticed_took_no_time() -> None:
    assert recovered_after(steady(40, 80), AT, PER_S) < 0.02


@given(st.floats(0.26, 8))
def test_a_gap_is_as_long_as_it_is(gap_s: float) -> None:
    found = recovered_after([*steady(40, AT), *steady(AT + gap_s, 80)], AT, PER_S)
    assert gap_s - 0.1 <= found <= gap_s + 0.1


def test_a_burst_of_what_waited_is_no_recovery() -> None:
    burst = [AT + 2.0] * 500
    found = recovered_after(sorted([*steady(40, AT), *burst, *steady(AT + 5, 80)]), AT, PER_S)
    assert found == pytest.approx(5.0, abs=0.15)


def test_the_burst_does_not_hide_a_short_gap() -> None:
    burst = [AT + 0.4] * 40
    found = recovered_after(sorted([*steady(40, AT), *burst, *steady(AT + 0.4, 80)]), AT, PER_S)
    assert found == pytest.approx(0.4, abs=0.1)


def test_half_the_rate_is_not_enough() -> None:
    half = steady(AT, AT + 3)[::2]
    found = recovered_after([*steady(40, AT), *half, *steady(AT + 3, 80)], AT, PER_S)
    assert found == pytest.approx(3.0, abs=0.15)


def test_who_never_comes_back_took_all_the_time_that_was_watched() -> None:
    assert recovered_after(steady(40, AT), AT, PER_S) >= 10


def test_what_the_ledgers_tell_of_a_fault() -> None:
    lines: list[Line] = [Began(0, 0, 1, "http", 1, 1)]
    for number in range(3):
        lines.append(Invoke(10.0 + number, f"c{number}", "fast", number, 99))
    lines += [Outcome(12.5, "c0", "unavailable"), Outcome(20.0, "c1", "ok"), Outcome(30.0, "c2", "unavailable")]
    told = [Struck(1, "worker-kill", "", at, 15.0, 99, {"a": 1}) for at in (9.0, 12.2, 13.0, 25.0)]
    assert [each.in_flight for each in with_in_flight([("http", lines)], told)] == [0, 3, 2, 1]
