"""Which channel each message goes by, without a broker; with one: tests/system/client/test_slow_queue.py."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from modelmq.amqp import Settled
from modelmq.client import scouts
from modelmq.client.scouts import Scouts, Sender
from modelmq.errors import BrokerError, ChannelClosed, ConnectionLost

ACKED, NACKED, RETURNED, LOST = Settled.ACKED, Settled.NACKED, Settled.RETURNED, Settled.LOST


class Channel:
    """Ends when it is told to."""

    def __init__(self) -> None:
        self.closed: asyncio.Future[BrokerError | None] = asyncio.get_running_loop().create_future()

    def leave(self) -> None:
        self.end(None)

    def end(self, reason: BrokerError | None) -> None:
        if not self.closed.done():
            self.closed.set_result(reason)


def sender_of(channel: Any, address: str) -> Sender:
    return Sender(channel, address)


class Bench:
    """Queues with messages that wait for a channel, as an outbox has them."""

    def __init__(self) -> None:
        self.main = Channel()
        self.opened: list[Channel] = []
        self.problem: BrokerError | None = None
        self.may_open = asyncio.Event()
        self.may_open.set()
        self.refused: list[ChannelClosed] = []
        self.waiting: dict[str, int] = {}
        self.sent: list[tuple[str, Channel]] = []
        self.under_way: dict[str, Callable[[Settled], None]] = {}
        self.verdicts: list[Settled] = []
        self.now_s = 100.0
        self.scouts = Scouts(sender_of(self.main, "here"), self._open, self.send, self.refused.append)

    async def _open(self) -> Sender:
        await self.may_open.wait()
        if self.problem is not None:
            raise self.problem
        self.opened.append(Channel())
        return sender_of(self.opened[-1], "everywhere")

    def ask(self, queue: str, count: int = 1) -> None:
        self.waiting[queue] = self.waiting.get(queue, 0) + count
        self.send(queue)

    def send(self, queue: str) -> None:
        while self.waiting.get(queue, 0) and (sender := self.scouts.sender(queue)) is not None:
            assert sender.reply_to == ("here" if sender.channel is self.main else "everywhere")
            self.under_way[queue] = self.scouts.hears(queue, sender, lambda verdict: self._then(queue, verdict))
            self.scouts.sent(queue, sender)
            self.sent.append((queue, sender.channel))
            self.waiting[queue] -= 1

    def _then(self, queue: str, verdict: Settled) -> None:
        self.verdicts.append(verdict)
        self.send(queue)

    def by_main(self, queue: str) -> int:
        return self.sent.count((queue, self.main))  # type: ignore[arg-type]

    def scouted(self) -> list[str]:
        return [queue for queue, channel in self.sent if channel is not self.main]


@pytest.fixture
async def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    made = Bench()
    monkeypatch.setattr(made.scouts._loop, "time", lambda: made.now_s)
    return made


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_the_first_goes_by_a_scout_and_the_others_wait_and_go_by_the_main_channel(bench: Bench) -> None:
    bench.ask("a", 10)
    assert bench.sent == []
    await turns()
    assert bench.scouted() == ["a"]
    bench.ask("a")
    assert len(bench.sent) == 1
    bench.under_way["a"](ACKED)
    assert bench.verdicts == [ACKED]
    assert bench.by_main("a") == 10
    bench.now_s += 3600
    bench.ask("a")
    assert bench.by_main("a") == 11


async def test_without_a_way_to_open_scouts_all_goes_by_the_main_channel(bench: Bench) -> None:
    bench.scouts = Scouts(sender_of(bench.main, "here"), None, bench.send)
    bench.ask("a", 3)
    assert bench.by_main("a") == 3


async def test_a_queue_that_takes_nothing_holds_up_no_other(bench: Bench) -> None:
    bench.ask("a", 5)
    await turns()
    for queue in "bcd":
        bench.ask(queue, 2)
        await turns()
        bench.under_way[queue](ACKED)
        assert bench.by_main(queue) == 1
    assert len(bench.opened) == 2
    assert bench.by_main("a") == 0
    bench.under_way["a"](ACKED)
    assert bench.by_main("a") == 4


async def test_long_after_a_scout_the_leader_may_be_gone_so_another_goes_first(bench: Bench) -> None:
    for _ in range(3):
        bench.ask("a")
        await turns()
        bench.under_way["a"](ACKED)
        bench.now_s += scouts.FRESH_S
    assert bench.scouted() == ["a"] * 3
    assert len(bench.opened) == 1


@pytest.mark.parametrize("verdict", [NACKED, RETURNED])
async def test_what_was_not_taken_says_nothing_of_the_next(bench: Bench, verdict: Settled) -> None:
    bench.ask("a", 2)
    await turns()
    bench.under_way["a"](verdict)
    await turns()
    assert bench.scouted() == ["a", "a"]
    assert len(bench.opened) == (2 if verdict is NACKED else 1), "a refused one may ask a leader that is gone for ever"
    assert bench.opened[0].closed.done() == (verdict is NACKED)


async def test_there_are_so_many_and_no_more_and_who_waits_longest_is_next(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scouts, "MOST_SCOUTS", 2)
    for queue in "abcd":
        bench.ask(queue, 2)
        await turns()
    assert bench.scouted() == ["a", "b"]
    bench.under_way["b"](RETURNED)
    assert bench.scouted() == ["a", "b", "c"]
    bench.under_way["c"](NACKED)
    await turns()
    assert bench.scouted() == ["a", "b", "c", "d"]
    assert len(bench.opened) == 3


async def test_one_is_kept_for_the_next_queue(bench: Bench) -> None:
    for queue in "abc":
        bench.ask(queue)
        await turns()
    for queue in "abc":
        bench.under_way[queue](ACKED)
    assert [channel.closed.done() for channel in bench.opened].count(False) == 1
    bench.ask("d")
    assert bench.scouted() == ["a", "b", "c", "d"]


async def test_where_none_can_be_opened_the_main_channel_must_do(bench: Bench) -> None:
    bench.problem = ChannelClosed("All channels are in use.")
    bench.ask("a", 2)
    bench.ask("b", 2)
    await turns()
    assert (bench.by_main("a"), bench.by_main("b")) == (2, 2)


async def test_what_nobody_waits_for_any_more_keeps_nobody_waiting(bench: Bench) -> None:
    bench.may_open.clear()
    bench.ask("a")
    bench.ask("b")
    bench.waiting["a"] = 0
    bench.may_open.set()
    await turns()
    assert bench.scouted() == ["b"]


async def test_the_end_of_the_main_channel_is_theirs(bench: Bench) -> None:
    bench.ask("a")
    await turns()
    bench.may_open.clear()
    bench.ask("b")
    await turns()
    bench.main.leave()
    bench.may_open.set()
    await turns()
    assert [channel.closed.done() for channel in bench.opened] == [True, True]
    assert bench.scouted() == ["a"]


async def test_why_the_broker_closed_one_is_told_and_that_its_connection_ended_is_not(bench: Bench) -> None:
    bench.ask("a")
    bench.ask("b")
    await turns()
    assert bench.scouted() == ["a", "b"]
    refusal = ChannelClosed("RabbitMQ closed the channel: 403.", reply_code=403)
    bench.opened[0].end(refusal)
    bench.under_way["a"](LOST)
    bench.opened[1].end(ConnectionLost("The connection ended."))
    bench.under_way["b"](LOST)
    await turns()
    assert bench.refused == [refusal]
    assert bench.verdicts == [LOST, LOST]
