from __future__ import annotations

import json

import pytest

from benchmarks.figure import Amount, Comparison
from benchmarks.ratios import Target


@pytest.fixture
def comparison() -> Comparison:
    return Comparison(
        title="Broker client",
        unit="requests/s",
        ours=(20_000.0, 30_000.0, 24_000.0),
        rival_name="aiormq",
        rival=(4_000.0, 5_000.0, 3_000.0),
        target=Target("at least", 5),
        notes=("a note",),
    )


def test_the_verdict_is_the_medians_not_the_best_rounds(comparison: Comparison) -> None:
    assert (comparison.ratio.low, comparison.ratio.median, comparison.ratio.high) == (5, 6, 8)
    assert comparison.met
    assert "6.00 x aiormq (rounds 5.00 to 8.00; target at least 5: met)" in comparison.lines()[0]


def test_a_missed_target_is_said_loudly(comparison: Comparison) -> None:
    slow = Comparison("Broker client", "requests/s", (1.0,), "aiormq", (1.0,), Target("at least", 5))
    assert not slow.met
    assert "NOT MET" in slow.lines()[0]


def test_what_it_was_made_from_and_the_notes_are_shown(comparison: Comparison) -> None:
    assert "24,000 (20,000 to 30,000) requests/s" in comparison.lines()[1]
    assert comparison.lines()[2].strip() == "a note"


def test_json_keeps_every_round(comparison: Comparison) -> None:
    kept = json.loads(json.dumps(comparison.as_json()))
    assert kept["ours"] == [20_000, 30_000, 24_000]
    assert kept["rival"] == {"name": "aiormq", "values": [4_000, 5_000, 3_000]}
    assert kept["ratio"] == {"median": 6, "min": 5, "max": 8}
    assert kept["met"] is True


def test_an_amount_has_its_own_bound() -> None:
    amount = Amount("Memory of the gateway", "MB", 79.96, Target("at most", 80))
    assert amount.met
    assert amount.lines() == ["Memory of the gateway: 80.0 MB (target at most 80 MB: met)"]
    assert amount.as_json()["value"] == 79.96
