from __future__ import annotations

from modelmq.worker.restarts import MAX_DEATHS_IN_A_ROW, RETRY_DELAYS_S, RestartCount


def test_the_first_restart_is_at_once_and_later_ones_slow_down() -> None:
    count = RestartCount()
    delays = [count.died() for _ in range(MAX_DEATHS_IN_A_ROW)]
    assert delays[0] == 0
    assert delays == sorted(delays)
    assert delays[-1] == 2.0
    assert count.exhausted


def test_a_success_forgives_everything() -> None:
    count = RestartCount()
    for _ in range(MAX_DEATHS_IN_A_ROW):
        count.died()
    count.succeeded()
    assert not count.exhausted
    assert count.died() == 0


def test_a_failed_model_is_tried_again_ever_more_rarely() -> None:
    count = RestartCount()
    delays = [count.failed() for _ in range(100)]
    assert delays[:4] == [1, 2, 4, 8]
    assert delays[-1] == RETRY_DELAYS_S[1]
