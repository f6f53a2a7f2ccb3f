"""Nothing grows: messages, channels and connections leave nothing behind."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from typing import Any

import pytest

from modelmq.amqp import AckTracker, Properties, Settled, connect

pytestmark = pytest.mark.broker


class Loop:
    """Publishes, hears of it, takes and acknowledges, with so many on the way at a time."""

    def __init__(self, channel: Any, queue: str, limit: int) -> None:
        self._channel = channel
        self._queue = queue
        self._acks = AckTracker()
        self._limit = limit
        self.confirmed = self.taken = self._sent = self._until = 0
        self._done = asyncio.Event()

    async def cycles(self, count: int) -> None:
        self._done.clear()
        self._until += count
        for _ in range(self._limit):
            self._publish()
        await asyncio.wait_for(self._done.wait(), 60)

    def on_delivery(self, delivery: Any) -> None:
        assert delivery.properties.headers["n"] >= 0
        self.taken += 1
        self._acks.delivered(delivery.delivery_tag)
        self._acks.settle(delivery.delivery_tag)
        for tag, multiple in self._acks.take():
            self._channel.ack(tag, multiple=multiple)
        self._go_on()

    def _publish(self) -> None:
        if self._sent < self._until:
            self._sent += 1
            properties = Properties(correlation_id=str(self._sent), headers={"n": self._sent})
            self._channel.publish("", self._queue, properties, b"x" * 256, mandatory=True, on_settled=self._on_settled)

    def _on_settled(self, settled: Settled) -> None:
        assert settled is Settled.ACKED
        self.confirmed += 1
        self._publish()
        self._go_on()

    def _go_on(self) -> None:
        if self.taken == self.confirmed == self._until:
            self._done.set()


async def test_50000_messages_leave_nothing_behind(vhost: Any, opened: Any) -> None:
    connection = await opened(vhost.options())
    channel = await connection.channel()
    await channel.confirm_select()
    queue = await channel.declare_queue(exclusive=True)
    loop = Loop(channel, queue, 200)
    await channel.consume(queue, loop.on_delivery)
    await loop.cycles(5_000)
    gc.collect()
    objects = len(gc.get_objects())
    await loop.cycles(40_000)
    gc.collect()
    assert len(gc.get_objects()) - objects < 500
    assert len(channel._confirms) == 0
    tracemalloc.start()
    try:
        await loop.cycles(2_000)
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        await loop.cycles(3_000)
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] - before < 100_000
    finally:
        tracemalloc.stop()
    assert loop.taken == loop.confirmed == 50_000


async def test_connections_and_channels_leave_nothing_behind(vhost: Any) -> None:
    async def one() -> None:
        connection = await connect(vhost.options())
        channel = await connection.channel()
        await channel.confirm_select()
        channel.publish("", "nowhere", Properties(), b"", mandatory=True, on_settled=lambda _: None)
        await channel.close()
        await connection.channel()
        await connection.close()

    for _ in range(5):
        await one()
    gc.collect()
    objects = len(gc.get_objects())
    for _ in range(30):
        await one()
    gc.collect()
    assert len(gc.get_objects()) - objects < 150, "five for each connection would be one too many"


async def test_an_ended_connection_is_freed_without_the_collector_being_needed_for_its_messages(vhost: Any) -> None:
    connection = await connect(vhost.options())
    channel = await connection.channel()
    await channel.confirm_select()
    for n in range(100):
        channel.publish("", "nowhere", Properties(message_id=str(n)), bytes(1000), on_settled=lambda _: None)
    connection.abort()
    await asyncio.wait_for(asyncio.shield(connection.closed), 20)
    assert len(channel._confirms) == 0
    assert not connection._channels
    assert list(connection._wire._channels) == [0]
