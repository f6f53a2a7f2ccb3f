from __future__ import annotations

import pytest

from modelmq.bundles import MOST_PARTS
from modelmq.worker.rate import Cost, Rate, bundle_limit


def test_the_rate_is_that_of_the_last_full_window() -> None:
    rate = Rate()
    rate.per_s(100.0)
    rate.add(30, 100.2)
    rate.add(20, 100.4)
    assert rate.per_s(100.5) == 0
    assert rate.per_s(102.0) == 25
    assert rate.per_s(102.5) == 25
    assert rate.per_s(103.0) == 0


@pytest.mark.parametrize(
    ("per_s", "prefetch", "max_rows", "limit"),
    [
        (0.0, 128, 64, 1),  # nothing is known of it yet
        (127.9, 128, 64, 1),
        (4000.0, 128, 64, 31),  # 128 messages of 31 requests are a second of work
        (1e6, 128, 64, 64),
        (1e6, 16, 8, 8),  # never more than a batch
        (1e6, 2, 1, 1),
        (1e6, 2000, 1000, MOST_PARTS),
    ],
)
def test_a_lane_full_of_bundles_is_a_second_of_work(per_s: float, prefetch: int, max_rows: int, limit: int) -> None:
    assert bundle_limit(per_s, 0.0, prefetch, max_rows) == limit
    if per_s >= 500:
        assert bundle_limit(0.0, per_s, prefetch, max_rows) == limit  # while it is idle as well
        assert bundle_limit(per_s, per_s / 2, prefetch, max_rows) == limit


def test_a_slow_model_gets_single_messages() -> None:
    assert bundle_limit(400.0, 400.0, 16, 8) == 1
    assert bundle_limit(400.0, 600.0, 16, 8) == 8


def test_a_request_costs_what_the_latest_batches_did() -> None:
    cost = Cost()
    assert cost.saved_s(5) == 0  # nothing is known of it yet
    cost.ran(4, 0.08)
    assert cost.mean_s == pytest.approx(0.02)
    assert cost.saved_s(3) == pytest.approx(0.06)
    assert cost.saved_s(3, spent_s=0.05) == pytest.approx(0.01)
    assert cost.saved_s(3, spent_s=1.0) == 0
    for _ in range(50):
        cost.ran(1, 0.1)
    assert cost.mean_s == pytest.approx(0.1, rel=0.01)
