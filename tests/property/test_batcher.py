"""The batcher in virtual time: whatever arrives in whatever order, nothing is lost, doubled, mixed or starved."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from modelmq.messages import LANES, Lane
from modelmq.metadata import BatchPolicy
from modelmq.worker.batcher import INTERACTIVE_PER_BULK, Batcher


@dataclass(frozen=True, eq=False)
class Request:
    lane: Lane
    key: Hashable
    rows: int
    received_s: float
    deadline_s: float


@dataclass(frozen=True)
class Arrival:
    after_s: float
    lane: Lane
    key: str
    rows: int
    patience_s: float


@dataclass(frozen=True)
class Take:
    after_s: float
    hurry: bool


@dataclass(frozen=True)
class Withdraw:
    after_s: float
    key: str


TIMES = st.sampled_from([0.0, 0.001, 0.01, 0.1, 1.0])
ARRIVALS = st.builds(
    Arrival,
    TIMES,
    st.sampled_from(LANES),
    st.sampled_from("ab"),
    st.integers(1, 8),
    st.sampled_from([0.0, 0.05, 100.0]),
)
STEPS = st.lists(
    st.one_of(ARRIVALS, ARRIVALS, st.builds(Take, TIMES, st.booleans()), st.builds(Withdraw, TIMES, st.just("b"))),
    max_size=60,
)
POLICIES = st.builds(BatchPolicy, st.integers(1, 8), st.sampled_from([0.0, 5.0, 500.0]))


@given(POLICIES, STEPS)
def test_every_request_comes_out_once_and_rightly(policy: BatchPolicy, steps: list[Arrival | Take | Withdraw]) -> None:
    batcher: Batcher[Request] = Batcher(policy)
    inside: list[Request] = []
    now = 0.0

    def take(*, hurry: bool) -> bool:
        items, expired = batcher.take(now, hurry=hurry)
        assert all(item.deadline_s <= now for item in expired)
        assert all(item.deadline_s > now for item in items)
        assert len({(item.lane, item.key) for item in items}) <= 1
        assert len(items) <= 1 or sum(item.rows for item in items) <= policy.max_batch_size
        for item in (*items, *expired):
            inside.remove(item)  # fails when it is not there: no request comes out twice
        if items:
            first = items[0]
            older = [
                i for i in inside if (i.lane, i.key) == (first.lane, first.key) and i.received_s < first.received_s
            ]
            assert not older
            waited = now - first.received_s >= policy.max_queue_delay_ms / 1000
            left = [i for i in inside if (i.lane, i.key) == (first.lane, first.key)]
            full = sum(i.rows for i in (*items, *left)) >= policy.max_batch_size
            assert hurry or waited or full or expired or first.deadline_s <= now
        return bool(items)

    for step in steps:
        now += step.after_s
        match step:
            case Arrival():
                request = Request(step.lane, step.key, step.rows, now, now + step.patience_s)
                inside.append(request)
                batcher.add(request)
            case Take():
                take(hurry=step.hurry)
            case Withdraw():
                removed = batcher.remove(lambda item, key=step.key: item.key == key)  # type: ignore[misc]
                assert removed == [i for lane in LANES for i in inside if i.key == step.key and i.lane == lane]
                inside = [item for item in inside if item.key != step.key]
        assert len(batcher) == len(inside) == len(list(batcher))
    while take(hurry=True):
        pass
    assert inside == []
    assert len(batcher) == 0
    assert batcher.ripe_at() is None


@given(POLICIES, st.lists(ARRIVALS, min_size=1, max_size=20))
def test_it_is_ripe_when_it_says_so_and_not_before(policy: BatchPolicy, arrivals: list[Arrival]) -> None:
    batcher: Batcher[Request] = Batcher(policy)
    now = 0.0
    for arrival in arrivals:
        now += arrival.after_s
        batcher.add(Request(arrival.lane, arrival.key, arrival.rows, now, now + arrival.patience_s))
    ripe_at = batcher.ripe_at()
    assert ripe_at is not None
    if ripe_at > now:
        assert batcher.take(now) == ((), ())
    taken = batcher.take(max(now, ripe_at))
    assert taken.items or taken.expired


@given(st.lists(st.booleans(), min_size=1, max_size=100))
def test_bulk_gets_its_share_and_no_more(more_bulk: list[bool]) -> None:
    """With both lanes always full, every 20th batch is bulk; whatever arrives, bulk waits for at most 19."""
    batcher: Batcher[Request] = Batcher(BatchPolicy(max_batch_size=1))
    passed = 0
    for step, bulk in enumerate(more_bulk * 3):
        now = float(step)
        batcher.add(Request("interactive", "a", 1, now, now + 1e9))
        if bulk:
            batcher.add(Request("bulk", "a", 1, now, now + 1e9))
        waiting = any(item.lane == "bulk" for item in batcher)
        (item,) = batcher.take(now).items
        passed = passed + 1 if waiting and item.lane == "interactive" else 0
        assert passed <= INTERACTIVE_PER_BULK
        assert item.lane == "interactive" or len(batcher) == 0 or step >= INTERACTIVE_PER_BULK
