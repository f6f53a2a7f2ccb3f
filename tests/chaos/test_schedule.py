"""A seed tells the whole schedule, and every kind comes as often as any other."""

from __future__ import annotations

from collections import Counter
from itertools import islice

from hypothesis import given
from hypothesis import strategies as st

from tests.chaos.schedule import SINGLE_NODE_KINDS, faults

VICTIMS = {"worker-kill": ("worker-0", "worker-1"), "link-cut": ("worker", "http-0")}


@given(st.integers(0, 2**32))
def test_a_seed_replays(seed: int) -> None:
    first = list(islice(faults(seed, SINGLE_NODE_KINDS, VICTIMS), 60))
    assert first == list(islice(faults(seed, SINGLE_NODE_KINDS, VICTIMS), 60))
    assert first != list(islice(faults(seed + 1, SINGLE_NODE_KINDS, VICTIMS), 60))


@given(st.integers(0, 2**32), st.integers(1, 20))
def test_all_kinds_are_equally_many(seed: int, rounds: int) -> None:
    found = list(islice(faults(seed, SINGLE_NODE_KINDS, VICTIMS), rounds * len(SINGLE_NODE_KINDS)))
    assert Counter(each.kind for each in found) == dict.fromkeys(SINGLE_NODE_KINDS, rounds)
    assert [each.number for each in found] == list(range(1, len(found) + 1))
    for each in found:
        assert each.victim in VICTIMS.get(each.kind, ("",))
