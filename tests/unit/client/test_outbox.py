from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from modelmq.amqp import Properties, Settled
from modelmq.bundles import BUNDLE, decode_requests
from modelmq.client.outbox import Outbox
from modelmq.client.pending import Entry, Pending
from modelmq.client.refusals import Refusals
from modelmq.client.replies import Asked
from modelmq.client.request import Request, refused, route
from modelmq.client.window import Windows
from modelmq.errors import Expired

LIMIT = 4


class Channel:
    """Takes what is published, and lets the test say when it is confirmed."""

    def __init__(self) -> None:
        self.connection = self
        self.writable = True
        self.closed = asyncio.get_running_loop().create_future()
        self.sent: list[tuple[str, Properties, bytes]] = []
        self.written = 0
        """So many of them are on their way."""
        self.settle: list[Callable[[Settled], None]] = []

    def flush(self) -> None:
        self.written = len(self.sent)

    def publish(
        self, _exchange: str, key: str, properties: Properties, body: bytes, *, mandatory: bool, on_settled: Any
    ) -> None:
        assert mandatory
        self.sent.append((key, properties, body))
        self.settle.append(on_settled)

    def requests(self) -> list[int]:
        """How many were in each message."""
        return [len(decode_requests(body)) if said.content_type == BUNDLE else 1 for _, said, body in self.sent]


class Bench:
    """An outbox without a broker."""

    def __init__(self) -> None:
        self.pending: Pending[Asked] = Pending(1.0)
        self.pending.way = 1
        self.channel = Channel()
        self.renewed = 0
        self.outbox = Outbox(self.pending, Windows(LIMIT, 1.0), refused, self._renew)
        self.outbox.open(self.channel, "here")  # type: ignore[arg-type]
        self.loop = asyncio.get_running_loop()

    def _renew(self) -> None:
        self.renewed += 1

    def ask(
        self, model: str = "m", version: str | None = None, *, limit: int = 1, left_s: float = 60.0
    ) -> Entry[Asked]:
        request = Request(model, b"{}", time.time() + left_s, version=version, bundle_limit=limit)
        way = route(model, version, "interactive", 1)
        asked = Asked(request, way.key, way.queue, self.loop.create_future())
        now = self.loop.time()
        entry = self.pending.add(f"{len(self.pending)}-{now}", asked, now + 60.0, now)
        self.outbox.put(entry, now)
        return entry


@pytest.fixture
async def bench() -> Bench:
    return Bench()


async def test_versions_of_a_model_share_what_their_queue_may_owe(bench: Bench) -> None:
    for _ in range(LIMIT):
        bench.ask()
        bench.ask(version="1")
        bench.ask(version="2")
    bench.ask("n")
    assert [key for key, _, _ in bench.channel.sent] == ["m", "m.1", "m.2", "m", "n"]
    bench.channel.settle[0](Settled.ACKED)
    assert [key for key, _, _ in bench.channel.sent[5:]] == ["m.1"]


async def test_bundles_are_on_their_way_before_the_turn_of_the_loop_ends(bench: Bench) -> None:
    for _ in range(3):
        bench.ask(limit=8)
        bench.ask("n", limit=8)
    assert bench.channel.sent == []
    await asyncio.sleep(0)
    assert (bench.channel.requests(), bench.channel.written) == ([3, 3], 2)


async def test_the_bundle_of_a_crowd_takes_in_what_arrives_within_a_few_turns(bench: Bench) -> None:
    for _ in range(7):
        bench.ask("n")
    bench.ask(limit=8)
    await asyncio.sleep(0)
    bench.ask(limit=8)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    bench.ask(limit=8)
    assert len(bench.channel.sent) == LIMIT  # of the other model
    await asyncio.sleep(0)
    assert (bench.channel.requests()[LIMIT:], bench.channel.written) == ([3], LIMIT + 1)


async def test_what_waited_leaves_in_the_order_it_came_and_together_where_it_may(bench: Bench) -> None:
    for _ in range(LIMIT):
        bench.ask()
    held = [bench.ask(limit=8) for _ in range(20)]
    held[1].payload.answer.cancel()
    bench.ask()
    for settle in bench.channel.settle[:LIMIT]:
        settle(Settled.ACKED)
    assert bench.channel.requests()[LIMIT:] == [8, 8, 3, 1]


async def test_asking_for_a_queue_that_confirms_nothing_costs_the_same_however_many_wait(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = 0
    may_travel = "modelmq.client.outbox.bundles.may_travel_together"

    def count(_body: bytes, _headers: object) -> bool:
        nonlocal looked
        looked += 1
        return True

    monkeypatch.setattr(may_travel, count)
    for _ in range(LIMIT):
        bench.ask()
    for _ in range(2000):
        bench.ask(limit=8)
        await asyncio.sleep(0)
    assert looked <= 2000
    assert len(bench.channel.sent) == LIMIT


async def test_with_a_new_channel_all_goes_once_and_together(bench: Bench) -> None:
    entries = [bench.ask(limit=8) for _ in range(3)]  # gathered
    bench.outbox.put_unsent()
    bench.outbox.put_unsent()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert bench.channel.requests() == [3]
    assert {entry.state for entry in entries} == {"sent"}


async def test_the_word_of_an_earlier_way_is_not_that_of_the_present_one(bench: Bench) -> None:
    entry = bench.ask()
    bench.pending.again(bench.loop.time(), 1)
    bench.pending.way = 2
    bench.outbox.put_unsent()
    first, second = bench.channel.settle
    first(Settled.ACKED)
    assert entry.state == "sent"
    second(Settled.ACKED)
    assert entry.state == "confirmed"  # type: ignore[comparison-overlap]


async def test_what_is_past_its_deadline_by_the_wall_clock_is_not_sent(bench: Bench) -> None:
    entry = bench.ask(left_s=-20.0)
    assert isinstance(entry.payload.answer.exception(), Expired)
    assert bench.channel.sent == []


async def test_another_channel_is_asked_for_when_a_queue_takes_nothing_from_this_one(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modelmq.client.refusals.PAUSE_S", (0.0, 0.0))
    monkeypatch.setattr(bench.outbox, "_refusals", Refusals())
    bench.ask()
    bench.ask("n")
    first, other = bench.channel.settle
    other(Settled.ACKED)
    assert bench.renewed == 0
    first(Settled.NACKED)
    assert bench.renewed == 1
    bench.pending.way = 2
    bench.ask()
    bench.pending.way = 3
    bench.channel.settle[-1](Settled.NACKED)
    assert bench.renewed == 1, "what an earlier channel was told says nothing of this one"
