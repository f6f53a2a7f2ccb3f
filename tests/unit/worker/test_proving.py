"""Proofs on a real broker: on 3.10 a forged address costs the spare connection, and only that."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from typing import Any

import pytest

from modelmq.amqp import Properties, Settled, connect
from modelmq.errors import ConnectionLost
from modelmq.events import MessageRefused
from modelmq.worker import proving
from modelmq.worker.proving import MOST_REPORTS, ProvingPublisher, Then

pytestmark = pytest.mark.broker


class Bench:
    def __init__(self, proving: ProvingPublisher, address: str, replies: list[bytes], events: list[Any]) -> None:
        self.proving = proving
        self.address = address
        self.replies = replies
        self.events = events
        self.settled: list[tuple[bytes, Settled]] = []
        self._news = asyncio.Event()

    def publish(self, address: str, body: bytes) -> None:
        self.proving.publish(address, Properties(), body, self._then(body))

    def report(self, address: str, body: bytes) -> None:
        self.proving.report(address, Properties(), body, self._then(body))

    def _then(self, body: bytes) -> Then:
        def then(settled: Settled) -> None:
            self.settled.append((body, settled))
            self._news.set()

        return then

    async def all(self, count: int) -> list[tuple[bytes, Settled]]:
        async with asyncio.timeout(30):
            while len(self.settled) < count:
                self._news.clear()
                await self._news.wait()
        return self.settled

    def forged(self, node: int) -> str:
        """Of a node that there is not."""
        process, key = self.address.split(".")[-2:]
        raw = base64.b64decode(process)
        name = b"reply@%d" % (node + 1)
        return (
            f"amq.rabbitmq.reply-to.{base64.b64encode(raw[:3] + bytes([len(name)]) + name + raw[-12:]).decode()}.{key}"
        )


@pytest.fixture
async def bench(vhost: Any) -> AsyncIterator[Bench]:
    caller = await connect(vhost.options("caller"))
    channel = await caller.channel()
    replies: list[bytes] = []
    events: list[Any] = []
    got: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    await channel.consume("amq.rabbitmq.reply-to", lambda delivery: replies.append(delivery.body), no_ack=True)
    queue = await channel.declare_queue(exclusive=True)
    await channel.consume(queue, lambda delivery: got.set_result(delivery.properties.reply_to or ""), no_ack=True)
    channel.publish("", queue, Properties(reply_to="amq.rabbitmq.reply-to"), b"")
    proving = ProvingPublisher(vhost.options("spare"), "", events.append)
    made = Bench(proving, await asyncio.wait_for(got, 30), replies, events)
    running = asyncio.create_task(proving.run())
    yield made
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await caller.close()


async def test_forged_addresses_are_dropped_one_by_one_and_keep_nobody_waiting_who_shares_none(bench: Bench) -> None:
    for number in range(5):
        bench.publish(bench.forged(number), b"forged")
        bench.publish(bench.forged(number), b"forged again")
    bench.publish(bench.address, b"good")
    bench.publish(bench.address, b"good too")
    settled = await bench.all(12)
    assert {verdict for body, verdict in settled if body.startswith(b"forged")} == {Settled.RETURNED}
    assert {verdict for body, verdict in settled if body.startswith(b"good")} == {Settled.ACKED}
    assert [body for body, _ in settled].index(b"good") == 5  # each address had its turn before any had a second
    assert len(bench.events) == 10
    assert isinstance(bench.events[0], MessageRefused)
    assert bench.proving.proven(bench.address)
    assert not bench.proving.proven(bench.forged(1))


async def test_reports_and_replies_take_turns_each_in_their_order(bench: Bench) -> None:
    for number in range(3):
        bench.publish(bench.forged(number), b"reply %d" % number)
    for number in range(2):
        bench.report(bench.forged(number), b"report %d" % number)
    settled = await bench.all(5)
    assert [body for body, _ in settled] == [b"report 0", b"reply 0", b"report 1", b"reply 1", b"reply 2"]


async def test_a_newer_report_to_an_address_takes_the_place_of_the_older(bench: Bench) -> None:
    bench.report(bench.address, b"older")
    bench.report(bench.forged(0), b"forged")
    bench.report(bench.address, b"newer")
    assert bench.settled == [(b"older", Settled.LOST)]
    assert (await bench.all(3))[1:] == [(b"newer", Settled.ACKED), (b"forged", Settled.RETURNED)]
    assert bench.replies == [b"newer"]


async def test_reports_that_wait_are_bounded_and_the_last_to_come_is_lost(bench: Bench) -> None:
    for number in range(MOST_REPORTS):
        bench.report(bench.forged(number), b"report %d" % number)
    assert bench.settled == []
    bench.report(bench.address, b"one more")
    assert bench.settled == [(b"one more", Settled.LOST)]
    bench.report(bench.forged(7), b"again")
    assert bench.settled[1:] == [(b"report 7", Settled.LOST)]


async def test_replies_that_wait_are_bounded_also_while_others_are_being_proved(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proving, "MOST_WAITING", 3)
    for body in (b"under way", b"behind it", b"last"):
        bench.publish(bench.forged(0), body)
    async with asyncio.timeout(30):
        while bench.proving._held == 3:  # noqa: ASYNC110 - of what is taken up nobody is told
            await asyncio.sleep(0)
    for body in (b"has room", b"has none"):
        bench.publish(bench.forged(1), body)
    assert bench.settled == [(b"has none", Settled.LOST)]


async def test_after_a_reply_has_ended_a_connection_everything_is_proved_again(bench: Bench) -> None:
    bench.publish(bench.address, b"good")
    await bench.all(1)
    bench.proving.distrust(ConnectionLost("It was restarted.", reply_code=320))
    bench.proving.distrust(None)
    assert bench.proving.proven(bench.address)
    bench.proving.distrust(ConnectionLost("A node has left.", reply_code=541))
    assert not bench.proving.proven(bench.address)
