from __future__ import annotations

from modelmq.worker.rate import Rate


def test_the_rate_is_that_of_the_last_full_window() -> None:
    rate = Rate()
    rate.per_s(100.0)
    rate.add(30, 100.2)
    rate.add(20, 100.4)
    assert rate.per_s(100.5) == 0
    assert rate.per_s(102.0) == 25
    assert rate.per_s(102.5) == 25
    assert rate.per_s(103.0) == 0
