"""A broker with one model's queue, an echo worker behind it, and requesters: what the tests of this folder share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest

from modelmq.amqp import Channel, Connection, Delivery, Properties, connect
from modelmq.client import Request, Requester
from modelmq.client.replies import Rights
from modelmq.errors import ModelMQError
from modelmq.events import BrokerConnected, Event
from modelmq.messages import CONTROL_EXCHANGE, MODEL_EXCHANGE, REPLY_EXCHANGE, REPLY_PATHS, ReplyMode, routing_key

PATIENCE_S = 30.0
MODEL = "echo"
QUEUE = "ml-model.echo.interactive"


class Signal:
    """A list that tells when it grows."""

    def __init__(self) -> None:
        self.items: list[Any] = []
        self._news = asyncio.Event()

    def add(self, item: Any) -> None:
        self.items.append(item)
        self._news.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                self._news.clear()
                await self._news.wait()

    async def count(self, count: int) -> list[Any]:
        await self.until(lambda: len(self.items) >= count)
        return self.items


class Broker:
    """The test's own connection: what a provisioner, an operator and a worker would do."""

    def __init__(self, connection: Connection, channel: Channel, reply_mode: ReplyMode) -> None:
        self.connection = connection
        self.channel = channel
        self.reply_exchange = REPLY_PATHS[reply_mode].exchange
        self.requests = Signal()
        self.control = Signal()
        self.answering = True
        self.respond: Callable[[Delivery], bytes] = lambda delivery: delivery.body

    async def provision(
        self,
        *,
        arguments: dict[str, Any] | None = None,
        queue_type: str = "classic",
        control: bool = True,
        replies: bool = True,
    ) -> None:
        await self.channel.declare_exchange(MODEL_EXCHANGE, "direct", durable=True)
        if replies:
            await self.channel.declare_exchange(REPLY_EXCHANGE, "direct", durable=True)
        if control:
            await self.channel.declare_exchange(CONTROL_EXCHANGE, "fanout", durable=True)
        kind = {"x-queue-type": queue_type}
        await self.channel.declare_queue(QUEUE, durable=True, arguments=kind | (arguments or {}))
        for version in (None, "1"):
            await self.channel.bind_queue(QUEUE, MODEL_EXCHANGE, routing_key(MODEL, version))

    async def echo(self, *, answering: bool = True) -> None:
        """Answer every request with its own body, unless told only to gather them."""
        self.answering = answering
        await self.channel.qos(2000)
        await self.channel.consume(QUEUE, self._on_request)

    def _on_request(self, delivery: Delivery) -> None:
        self.requests.add(delivery)
        if self.answering:
            self.answer(delivery, self.respond(delivery))
            self.channel.ack(delivery.delivery_tag)

    def answer(self, delivery: Delivery, body: bytes, **properties: Any) -> None:
        asked = delivery.properties
        fields = {"correlation_id": asked.correlation_id, **properties}
        self.channel.publish(self.reply_exchange, asked.reply_to or "", Properties(**fields), body)

    async def watch_control(self) -> None:
        queue = await self.channel.declare_queue(exclusive=True)
        await self.channel.bind_queue(queue, CONTROL_EXCHANGE)
        await self.channel.consume(queue, self.control.add, no_ack=True)


@pytest.fixture
async def broker(vhost: Any, reply_mode: ReplyMode) -> AsyncIterator[Broker]:
    connection = await connect(vhost.options(name="test-broker"))
    yield Broker(connection, await connection.channel(), reply_mode)
    await connection.close()


class Asker:
    """A requester with everything it told."""

    def __init__(self, requester: Requester, events: Signal, reports: Signal) -> None:
        self.requester = requester
        self.events = events
        self.reports = reports

    def ask(self, body: bytes = b"{}", *, model: str = MODEL, timeout_s: float = PATIENCE_S, **fields: Any) -> Any:
        return self.requester.ask(Request(model, body, time.time() + timeout_s, **fields))

    def start(self, count: int, **fields: Any) -> list[asyncio.Task[bytes]]:
        return [asyncio.create_task(self.ask(b"%d" % number, **fields)) for number in range(count)]

    def of(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.events.items if type(event) is kind]

    async def connected(self, times: int = 1) -> None:
        await self.events.until(lambda: len(self.of(BrokerConnected)) >= times)


@pytest.fixture
async def asking(vhost: Any, reply_mode: ReplyMode) -> AsyncIterator[Callable[..., Awaitable[Asker]]]:
    made: list[Requester] = []

    async def start(*, wait: bool = True, options: Any = None, **fields: Any) -> Asker:
        events, reports = Signal(), Signal()
        requester = Requester(
            options or vhost.options(name="test-asker"),
            service="test",
            emit=events.add,
            on_report=reports.add,
            **{"rights": Rights(reply_mode, "ml-gateway.test."), **fields},
        )
        made.append(requester)
        await requester.start()
        if wait:
            await asyncio.wait_for(requester.up(), PATIENCE_S)
        return Asker(requester, events, reports)

    yield start
    for requester in made:
        await requester.stop()


class Cut:
    """A way to the broker that can be cut: connections end, new ones are refused until it is mended."""

    def __init__(self, port: int) -> None:
        self._broker_port = port
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    async def mend(self) -> None:
        self._server = await asyncio.start_server(self._on_connection, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        """Refuse new connections, end those that are."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.break_off()

    def break_off(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def end(self) -> None:
        await self.cut()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _on_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._broker_port)
        self._writers |= {writer, back}
        for source, target in ((reader, back), (there, writer)):
            task = asyncio.create_task(self._pump(source, target))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await source.read(65536):
                target.write(data)
                await target.drain()
        target.transport.abort()


@pytest.fixture
async def cut(vhost: Any) -> AsyncIterator[Cut]:
    cut = Cut(vhost.node.amqp_port)
    await cut.mend()
    yield cut
    await cut.end()


async def gather(tasks: list[asyncio.Task[bytes]]) -> list[bytes | ModelMQError]:
    """What each ended with; any error that is not ours is a failure of the test."""
    async with asyncio.timeout(PATIENCE_S):
        results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(result, bytes | ModelMQError) for result in results), results
    return results  # type: ignore[return-value]


@pytest.fixture
def results_of() -> Callable[[list[asyncio.Task[bytes]]], Awaitable[list[bytes | ModelMQError]]]:
    return gather
