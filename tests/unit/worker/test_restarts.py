from __future__ import annotations

import pytest

from modelmq.worker.halving import Halving
from modelmq.worker.restarts import RETRY_DELAYS_S, RestartCount, most_deaths

MOST = 12


def test_the_first_restart_is_at_once_and_later_ones_slow_down() -> None:
    count = RestartCount(MOST)
    delays = [count.died() for _ in range(MOST)]
    assert delays[0] == 0
    assert delays == sorted(delays)
    assert delays[-1] == 2.0
    assert count.exhausted


def test_a_success_forgives_everything() -> None:
    count = RestartCount(MOST)
    for _ in range(MOST):
        count.died()
    count.succeeded()
    assert not count.exhausted
    assert count.died() == 0


def test_a_failed_model_is_tried_again_ever_more_rarely() -> None:
    count = RestartCount(MOST)
    delays = [count.failed() for _ in range(100)]
    assert delays[:4] == [1, 2, 4, 8]
    assert delays[-1] == RETRY_DELAYS_S[1]


@pytest.mark.parametrize("size", [1, 2, 3, 8, 31, 32, 33])
@pytest.mark.parametrize("attempts", [1, 3])
def test_two_poisonous_requests_of_a_batch_are_found_before_the_model_is_called_failed(
    size: int, attempts: int
) -> None:
    for first in range(size):
        for second in range(first, size):
            plan, count = Halving(range(size), max_attempts=attempts), RestartCount(most_deaths(size, attempts))
            found = set()
            while run := plan.next():
                if first in run or second in run:
                    found.add(plan.died())
                    count.died()
                    assert not count.exhausted
                else:
                    plan.succeeded()
                    count.succeeded()
            assert found - {None} == {first, second}
