from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from modelmq.supervisor.policy import GiveUp, Restart, RestartPolicy, after_end

POLICY = RestartPolicy(budget=3, window_s=10.0, first_delay_s=0.2, longest_delay_s=1.0)


def verdicts(times: list[float], policy: RestartPolicy = POLICY, jitter: float = 1.0) -> list[Restart | GiveUp]:
    """What is decided when a service ends at these times, until it is given up."""
    ends: tuple[float, ...] = ()
    found: list[Restart | GiveUp] = []
    for end_s in times:
        verdict = after_end(policy, ends, end_s, jitter)
        found.append(verdict)
        if isinstance(verdict, GiveUp):
            break
        ends = verdict.ends
    return found


def test_a_first_end_is_answered_almost_at_once() -> None:
    assert verdicts([100.0]) == [Restart(0.2, (100.0,))]


def test_the_delay_doubles_up_to_its_limit() -> None:
    policy = RestartPolicy(budget=9, window_s=10.0, first_delay_s=0.2, longest_delay_s=1.0)
    delays = [v.delay_s for v in verdicts([0.0, 1.0, 2.0, 3.0, 4.0], policy) if isinstance(v, Restart)]
    assert delays == [0.2, 0.4, 0.8, 1.0, 1.0]


def test_one_end_more_than_the_budget_within_the_window_is_the_last() -> None:
    *restarts, last = verdicts([0.0, 1.0, 2.0, 3.0, 4.0])
    assert len(restarts) == 3
    assert last == GiveUp(4, 10.0)


def test_ends_out_of_the_window_are_forgiven() -> None:
    assert all(isinstance(verdict, Restart) for verdict in verdicts([0.0, 1.0, 2.0, 11.5, 12.5, 22.0, 23.0]))


@given(
    times=st.lists(st.floats(0, 1e6), max_size=40).map(sorted),
    budget=st.integers(1, 8),
    window_s=st.floats(0.1, 1e4),
    jitter=st.floats(0, 1),
)
def test_never_more_restarts_in_a_window_than_the_budget(
    times: list[float], budget: int, window_s: float, jitter: float
) -> None:
    policy = RestartPolicy(budget, window_s)
    restarted = [
        at_s for at_s, v in zip(times, verdicts(times, policy, jitter), strict=False) if isinstance(v, Restart)
    ]
    for start in restarted:
        assert len([at_s for at_s in restarted if start <= at_s and at_s - start < window_s]) <= budget


@given(times=st.lists(st.floats(0, 1e6), max_size=100).map(sorted), budget=st.integers(1, 2000), jitter=st.floats(0, 1))
def test_delays_stay_within_half_and_all_of_the_longest(times: list[float], budget: int, jitter: float) -> None:
    for verdict in verdicts(times, RestartPolicy(budget), jitter):
        if isinstance(verdict, Restart):
            assert 0.1 <= verdict.delay_s <= 5.0
            assert len(verdict.ends) <= budget
