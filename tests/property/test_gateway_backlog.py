"""The prediction in virtual time, against a queue that is what it says: no refusal without reason."""

from __future__ import annotations

from collections import deque

from hypothesis import example, given, settings
from hypothesis import strategies as st

from modelmq.control import LaneReport, ModelReport, WorkerReport
from modelmq.gateway.admission import usable_s
from modelmq.gateway.backlog import Backlogs, QueueLimits
from modelmq.worker.capacity import Capacity

LIMITS = QueueLimits(10_000, 2**30)
COUNTS = st.integers(0, 20_000)
SPEEDS = st.floats(0.01, 1e6)
HELD = 16
STEPS, SETTLED_S = 1000, 6.0


def report(ready: int, held: int, per_s: float, worker: str = "w") -> WorkerReport:
    models = (ModelReport("m", "1", "ready", capacity_per_s=per_s),)
    return WorkerReport(worker, "default", models, (LaneReport("m", "interactive", ready, held),))


def heard(*reports: WorkerReport, own: int, now_s: float = 0.0) -> Backlogs:
    backlogs = Backlogs(LIMITS)
    for each in reports:
        backlogs.heard(each, lambda _: own, now_s)
    return backlogs


@given(COUNTS, COUNTS, COUNTS, SPEEDS)
def test_more_ahead_is_never_a_shorter_wait(ready: int, more: int, sent: int, per_s: float) -> None:
    few, many = (heard(report(count, HELD, per_s), own=count + HELD) for count in (ready, ready + more))
    for backlogs in (few, many):
        for _ in range(min(sent, 50)):
            backlogs.sent("m", "interactive", 1, 0.0)
    assert few.wait_s("m", "interactive", 0.0) <= many.wait_s("m", "interactive", 0.0)


@given(COUNTS, SPEEDS, st.floats(0, 100), st.floats(0, 100))
def test_a_wait_gets_shorter_by_waiting(ready: int, per_s: float, first_s: float, then_s: float) -> None:
    backlogs = heard(report(ready, HELD, per_s), own=0)
    early = backlogs.wait_s("m", "interactive", first_s)
    assert 0 <= backlogs.wait_s("m", "interactive", first_s + then_s) <= early


@given(st.lists(SPEEDS, min_size=1, max_size=8), COUNTS)
def test_another_worker_never_makes_it_longer_but_by_what_it_holds(speeds: list[float], ready: int) -> None:
    reports = [report(ready, HELD, per_s, f"w{number}") for number, per_s in enumerate(speeds)]
    wait_s = heard(*reports, own=ready).wait_s("m", "interactive", 0.0)
    assert wait_s <= (ready + HELD * len(speeds) + 1) / sum(speeds) * 1.001


@given(SPEEDS, st.lists(st.floats(1.0, 3.0), min_size=1, max_size=200))
def test_who_asks_no_faster_than_it_can_do_is_never_told_to_wait(per_s: float, pauses: list[float]) -> None:
    """Pauses are in units of the time that one request takes."""
    backlogs, now_s = heard(report(0, 0, per_s), own=0), 0.0
    for pause in pauses:
        now_s += pause * 1.0001 / per_s
        assert backlogs.wait_s("m", "interactive", now_s) < 1e-3 / per_s
        backlogs.sent("m", "interactive", 1, now_s)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 4),
    st.sampled_from([0.3, 1.0, 5.0]),
    st.floats(2.0, 20.0),
    st.lists(st.integers(1, 5), min_size=4, max_size=4),
)
def test_overloaded_by_several_gateways_it_stays_busy_and_nobody_waits_in_vain(
    gateways: int, deadline_s: float, factor: float, shares: list[int]
) -> None:
    """A fluid queue at 400 requests a second, offered a multiple of that, its depth told once a second.

    Once they have settled, hardly anybody is let in who waits longer than the deadline, and there is always work.
    """
    capacity, step_s = 400.0, 0.01
    offered = [factor * capacity * share / sum(shares[:gateways]) for share in shares[:gateways]]
    views = [Backlogs(LIMITS) for _ in offered]
    waiting, pending = [0.0] * gateways, [0.0] * gateways
    late = admitted = idle = 0.0
    for step in range(STEPS):
        now_s = step * step_s
        depth = sum(waiting)
        if step % 100 == 0:
            for view, own in zip(views, waiting, strict=True):
                view.heard(report(int(depth), 0, capacity), lambda _, own=own: int(own), now_s)  # type: ignore[misc]
        for number, view in enumerate(views):
            pending[number] += offered[number] * step_s
            while pending[number] >= 1 and view.wait_s("m", "interactive", now_s) <= usable_s(deadline_s):
                pending[number] -= 1
                view.sent("m", "interactive", 1, now_s)
                waiting[number] += 1
                settled = now_s > SETTLED_S
                admitted += settled
                late += settled and sum(waiting) / capacity > deadline_s
            pending[number] %= 1  # the rest is refused
        done = min(capacity * step_s, depth := sum(waiting))
        idle += now_s > SETTLED_S and done < capacity * step_s * 0.999
        waiting = [each * (1 - done / depth) if depth else 0.0 for each in waiting]
    assert late <= 0.02 * admitted
    assert idle <= 0.05 * (STEPS - SETTLED_S / step_s)


@settings(max_examples=10)
@example(1.0, 10.0, 501)
@given(st.sampled_from([1.0, 2.0, 5.0]), st.floats(10.0, 40.0), st.integers(200, 850))
def test_after_a_stall_all_are_let_in_again(deadline_s: float, slower: float, offered_per_s: int) -> None:
    """A model that runs 32 requests in 34 ms, and so many times slower from the fifth second to the fifteenth.

    What is let in then fills no batches; they are over in milliseconds, and that must be noticed.
    """
    backlogs, capacity, step_s = Backlogs(LIMITS), Capacity(), 0.001
    waiting: deque[float] = deque()
    batch: list[float] = []
    ends_s, full, asked, let_in = 0.0, False, 0, 0
    for step in range(45_000):
        now_s = step * step_s
        if batch and now_s >= ends_s:
            capacity.finished(len(batch), batch[0], now_s, full=full)
            batch = []
        if not batch and waiting:
            batch = [waiting.popleft() for _ in range(min(32, len(waiting)))]
            full = len(batch) == 32 or bool(waiting)
            ends_s = now_s + (0.01 + 0.00075 * len(batch)) * (slower if 5 < now_s < 15 else 1.0)
        if step % 1000 == 0:
            count, own = len(waiting), len(waiting) + len(batch)
            backlogs.heard(report(count, len(batch), capacity.per_s), lambda _, own=own: own, now_s)  # type: ignore[misc]
        if step % (1000 // offered_per_s + 1) == 0:
            asked += now_s > 35
            if backlogs.wait_s("m", "interactive", now_s) <= usable_s(deadline_s):
                backlogs.sent("m", "interactive", 1, now_s)
                waiting.append(now_s)
                let_in += now_s > 35
    assert let_in >= 0.95 * asked
