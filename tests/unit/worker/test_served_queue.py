"""A model's lanes on a real broker, with versions whose state the test sets: no process is started."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from modelmq import bundles
from modelmq.amqp import Channel, Connection, Delivery, Properties, connect
from modelmq.bundles import BUNDLE, RequestPart
from modelmq.events import ignore
from modelmq.messages import LANES, MODEL_EXCHANGE
from modelmq.metadata import Signature, TensorSpec
from modelmq.runtimes import ModelSettings, ModelSource
from modelmq.settings import WorkerSettings
from modelmq.topology_names import ModelRoute, queue_name
from modelmq.worker.confirmed import ConfirmedPublisher
from modelmq.worker.intake import Rules
from modelmq.worker.proving import ProvingPublisher
from modelmq.worker.reply_address import rules_of
from modelmq.worker.served_queue import ServedQueue, Surroundings

pytestmark = pytest.mark.broker

SIGNATURE = Signature("python", (TensorSpec("x", "FP32", (-1,)),), (), batched=True)
BODY = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [0.5]}]}).encode()
ROUTE = ModelRoute(name="m", queue=None, routing_key=None)


@dataclass
class Bench:
    """A queue with two versions, and a caller on a connection of its own."""

    queue: ServedQueue
    worker: Connection
    caller: Channel
    address: str
    replies: asyncio.Queue[Delivery]

    def ask_thrice(self, key: str) -> None:
        """In one message."""
        body = bundles.encode([RequestPart(name, 2**42, name, "application/json", None, BODY) for name in "abc"])
        self.caller.publish(MODEL_EXCHANGE, key, Properties(content_type=BUNDLE, reply_to=self.address), body)

    async def statuses_of_a_reply(self) -> list[str]:
        delivery = await within(self.replies.get())
        return [part.status for part in bundles.decode_replies(delivery.body)]

    async def until(self, condition: Any) -> None:
        async with asyncio.timeout(20):
            while not condition():  # noqa: ASYNC110 - what is taken in is told to the model's process only
                await asyncio.sleep(0.01)


async def within(what: Any) -> Any:
    async with asyncio.timeout(20):
        return await what


@pytest.fixture
async def bench(vhost: Any) -> AsyncIterator[Bench]:
    worker, client = await connect(vhost.options("worker")), await connect(vhost.options("client"))
    caller = await client.channel()
    for lane in LANES:
        await caller.declare_queue(queue_name(ROUTE, lane), durable=True, arguments={"x-queue-type": "quorum"})
    await caller.declare_exchange(MODEL_EXCHANGE, "direct")
    for key in ("m.1", "m.9"):
        await caller.bind_queue(queue_name(ROUTE, "interactive"), MODEL_EXCHANGE, key)
    replies: asyncio.Queue[Delivery] = asyncio.Queue()
    address = await caller.declare_queue("", exclusive=True)
    await caller.consume(address, replies.put_nowait, no_ack=True)
    rules = Rules(10**6, rules_of("direct"))
    proving = ProvingPublisher(vhost.options("spare"), "", ignore)
    around = Surroundings(
        WorkerSettings(), ignore, ConfirmedPublisher(""), proving, rules, lambda: None, lambda _: None
    )
    sources = [ModelSource("m", version, Path(f"models/m/{version}/model.py"), ModelSettings()) for version in "12"]
    queue = ServedQueue(sources, around)
    for version in queue.versions.values():
        version.tried, version.state, version.signature = True, "ready", SIGNATURE
    yield Bench(queue, worker, caller, address, replies)
    await within(worker.close())
    await within(queue.drain())
    await client.close()


async def test_those_of_one_message_that_are_refused_are_told_in_one(bench: Bench) -> None:
    bench.queue.attach(bench.worker, {})
    bench.ask_thrice("m.9")
    assert await bench.statuses_of_a_reply() == ["not_found"] * 3


async def test_those_that_a_version_leaves_behind_are_told_in_one(bench: Bench) -> None:
    bench.queue.attach(bench.worker, {})
    version = bench.queue.versions["1"]
    bench.ask_thrice("m.1")
    await bench.until(lambda: len(version._batcher) == 3)
    version._fail("It does not load.")
    assert await bench.statuses_of_a_reply() == ["unavailable"] * 3


async def test_a_lane_that_opens_after_another_connection_took_over_takes_nobodys_place(bench: Bench) -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def channel() -> Channel:
        asked.set()
        await go_on.wait()
        return await bench.worker.channel()

    overtaken: Any = SimpleNamespace(channel=channel, closed=bench.worker.closed)
    bench.queue.attach(overtaken, {})
    await within(asked.wait())
    bench.queue.attach(bench.worker, {})
    await bench.until(lambda: len(bench.queue._lanes) == len(LANES))
    lanes = dict(bench.queue._lanes)
    go_on.set()
    await within(bench.queue.left(overtaken))
    assert bench.queue._lanes == lanes
