from __future__ import annotations

from modelmq.events import RequestsRefused
from modelmq.gateway.refusals import Refusals


def test_a_second_of_refusals_is_one_line_per_model() -> None:
    refusals = Refusals(0.0)
    for _ in range(3000):
        refusals.add("a", "Too much.")
    refusals.add("b", "Full.")
    assert refusals.due(0.5) == ()
    assert refusals.due(1.0) == [RequestsRefused("a", 3000, 1.0, "Too much."), RequestsRefused("b", 1, 1.0, "Full.")]
    assert refusals.due(2.0) == []


def test_invented_names_do_not_fill_the_memory() -> None:
    refusals = Refusals(0.0)
    for number in range(5000):
        refusals.add(f"m{number}", "Too much.")
    told = refusals.due(1.0)
    assert len(told) == 1001
    assert sum(each.count for each in told) == 5000
