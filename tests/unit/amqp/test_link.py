from __future__ import annotations

import pytest

from modelmq.amqp.link import FIRST_DELAY_S, MAX_DELAY_S, backoff_s


def test_the_first_delay_is_short() -> None:
    assert 0 < backoff_s(0, 0.0) <= backoff_s(0, 1.0) == FIRST_DELAY_S


def test_delays_grow_to_a_limit_and_stay_there() -> None:
    delays = [backoff_s(failures, 1.0) for failures in range(200)]
    assert delays == sorted(delays)
    assert delays[-1] == MAX_DELAY_S


@pytest.mark.parametrize("failures", [0, 1, 5, 10**9])
def test_chance_spreads_over_half_of_the_delay(failures: int) -> None:
    longest = backoff_s(failures, 1.0)
    assert backoff_s(failures, 0.0) == pytest.approx(longest / 2)
    assert backoff_s(failures, 0.5) == pytest.approx(longest * 0.75)
