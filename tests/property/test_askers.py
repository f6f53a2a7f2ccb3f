"""Hellos in virtual time: who asks as gateways do is answered whatever others do, and nobody can make a worker talk."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from modelmq.control import GONE_AFTER_S, HELLO_INTERVAL_S
from modelmq.worker.askers import MOST_KNOWN, MOST_OTHERS, Askers

BURSTS = st.lists(
    st.tuples(st.floats(0.0, 0.99), st.sampled_from(["one", "many", "gateway"]), st.integers(1, 400)), max_size=6
)


@given(st.lists(BURSTS, min_size=1, max_size=6))
def test_a_gateway_that_was_answered_once_is_heard_in_time_and_a_flood_is_bounded(
    seconds: list[list[tuple[float, str, int]]],
) -> None:
    askers, heard_s = Askers(), 10.0
    assert askers.may_be_answered("gateway", heard_s)
    for number, bursts in enumerate(seconds):
        now, answered = 10.0 + number, 0
        for after_s, who, count in sorted(bursts):
            for each in range(count):
                name = f"{number}-{each}" if who == "many" else who
                answered += askers.may_be_answered(name, now + after_s)
        assert answered <= 2 * (MOST_KNOWN + MOST_OTHERS)  # a second of ours may lie in two intervals of its own
        if askers.may_be_answered("gateway", now + HELLO_INTERVAL_S):
            heard_s = now + HELLO_INTERVAL_S
        assert now + HELLO_INTERVAL_S - heard_s < GONE_AFTER_S - HELLO_INTERVAL_S
        lately = askers.lately(now + HELLO_INTERVAL_S)
        assert "gateway" in lately
        assert len(lately) <= MOST_KNOWN


def test_too_many_strangers_wait_until_the_next_second() -> None:
    askers = Askers()
    assert askers.may_be_answered("gateway", 9.0)
    assert sum(askers.may_be_answered(f"a-{number}", 10.0) for number in range(10_000)) == MOST_OTHERS
    assert askers.may_be_answered("gateway", 10.1)
    assert not askers.may_be_answered("gateway", 10.2)
    assert not askers.may_be_answered("late", 10.2)
    assert askers.may_be_answered("late", 11.0)


def test_who_is_silent_or_gone_is_told_nothing_more() -> None:
    askers = Askers()
    assert askers.may_be_answered("silent", 10.0)
    assert askers.may_be_answered("gone", 12.0)
    assert askers.lately(12.0) == ["silent", "gone"]
    askers.forget("gone")
    assert askers.lately(10.0 + GONE_AFTER_S) == ["silent"]
    assert askers.lately(10.1 + GONE_AFTER_S) == []
