"""Named cases; that nothing is lost, doubled or starved in any order is in tests/property/test_batcher.py."""

from __future__ import annotations

from dataclasses import dataclass

from modelmq.messages import Lane
from modelmq.metadata import BatchPolicy
from modelmq.worker.batcher import INTERACTIVE_PER_BULK, Batcher


@dataclass(frozen=True, eq=False)
class Request:
    name: str
    rows: int = 1
    key: str = "k"
    lane: Lane = "interactive"
    received_s: float = 0.0
    deadline_s: float = 100.0


def holding(*requests: Request, delay_ms: float = 0.0, rows: int = 4) -> Batcher[Request]:
    batcher: Batcher[Request] = Batcher(BatchPolicy(rows, delay_ms))
    for request in requests:
        batcher.add(request)
    return batcher


def names(requests: tuple[Request, ...] | list[Request]) -> str:
    return "".join(request.name for request in requests)


def test_what_is_there_is_taken_at_once() -> None:
    batcher = holding(Request("a"), Request("b"))
    assert names(batcher.take(0.0).items) == "ab"
    assert len(batcher) == 0
    assert batcher.ripe_at() is None


def test_rows_are_counted_not_requests() -> None:
    batcher = holding(Request("a", rows=2), Request("b", rows=3), Request("c"))
    assert names(batcher.take(0.0).items) == "a"
    assert names(batcher.take(0.0).items) == "bc"


def test_the_key_that_waits_longest_goes_first() -> None:
    batcher = holding(Request("a", received_s=1.0), Request("b", key="other", received_s=0.5))
    assert names(batcher.take(2.0).items) == "b"


def test_a_delay_waits_for_company_but_not_beyond_the_deadline() -> None:
    batcher = holding(Request("a"), delay_ms=500)
    assert batcher.ripe_at() == 0.5
    assert batcher.take(0.4).items == ()
    assert names(batcher.take(0.5).items) == "a"
    assert holding(Request("a", deadline_s=0.2), delay_ms=500).ripe_at() == 0.2


def test_a_full_batch_and_a_hurry_wait_for_nothing() -> None:
    assert names(holding(Request("a", rows=3), Request("b"), delay_ms=500).take(0.0).items) == "ab"
    assert names(holding(Request("a"), delay_ms=500).take(0.0, hurry=True).items) == "a"


def test_the_expired_are_told_apart_when_they_are_reached() -> None:
    taken = holding(Request("a", deadline_s=1.0), Request("b")).take(2.0)
    assert (names(taken.items), names(taken.expired)) == ("b", "a")


def test_bulk_has_its_turn_after_its_share_of_interactive_batches() -> None:
    batcher = holding(Request("B", lane="bulk"), rows=1)
    order = ""
    for _ in range(INTERACTIVE_PER_BULK + 1):
        batcher.add(Request("i"))
        order += names(batcher.take(0.0).items)
    assert order == "i" * INTERACTIVE_PER_BULK + "B"


def test_what_is_withdrawn_leaves_the_others_in_their_places() -> None:
    batcher = holding(Request("a"), Request("b"), Request("c"))
    assert names(batcher.remove(lambda request: request.name == "b")) == "b"
    assert names(list(batcher)) == "ac"
    assert names(batcher.take(0.0).items) == "ac"
