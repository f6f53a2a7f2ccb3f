"""Requests that share messages between a gateway and its workers: nobody notices, whatever happens to the workers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Any

import pytest

from modelmq import bundles
from modelmq.amqp import Delivery, connect
from modelmq.bundles import BUNDLE
from modelmq.messages import MODEL_EXCHANGE

from .conftest import Broker, Running, Serve, values_of

pytestmark = pytest.mark.broker
Async = Callable[..., Awaitable[Any]]
Make = Callable[..., None]

POISON = """
    import os

    class Model:
        inputs = {"x": ("FP64", [-1])}
        outputs = {"y": ("FP64", [-1])}
        def predict(self, batch):
            if (batch["x"] < 0).any():
                os._exit(3)
            return {"y": batch["x"] * 2}
"""
SMALL = "max_batch_size = 8\n"
"""So that a few hundred requests per second are enough for bundles."""


LONG = {"confirm_timeout_s": 30.0}
"""A machine that is busy with other tests may take longer than a second to confirm, which is not what is asked here."""


class Tap:
    """A copy of every message to the model."""

    def __init__(self) -> None:
        self.parts = 0
        self.bundles = 0

    def see(self, delivery: Delivery) -> None:
        if delivery.properties.content_type == BUNDLE:
            self.bundles += 1
            self.parts += len(bundles.decode_requests(delivery.body))


class Crowd:
    """Many callers at once, each of whom checks its own answers."""

    def __init__(self, gateway: Running) -> None:
        self.answered = 0
        self._gateway = gateway
        self._stop = asyncio.Event()
        self._numbers = count(1)
        self._tasks = [asyncio.create_task(self._ask()) for _ in range(48)]

    async def _ask(self) -> None:
        while not self._stop.is_set():
            number = float(next(self._numbers))
            assert values_of(await self._gateway.infer("double", number)) == [2 * number]
            self.answered += 1

    async def more(self, tap: Tap) -> None:
        """Until some more were answered, and bundles were among them."""
        answered, seen = self.answered, tap.bundles

        def enough() -> bool:
            for each in self._tasks:
                if each.done():
                    each.result()  # raises what was wrong with an answer
            return self.answered > answered + 200 and tap.bundles > seen + 5

        await self._gateway.until(enough)

    async def leave(self) -> None:
        self._stop.set()
        await asyncio.gather(*self._tasks)


async def _tapped(broker: Broker) -> tuple[Any, Tap]:
    connection = await connect(broker.options)
    channel = await connection.channel()
    queue = await channel.declare_queue(exclusive=True)
    await channel.bind_queue(queue, MODEL_EXCHANGE, "double")
    tap = Tap()
    await channel.consume(queue, tap.see, no_ack=True)
    return connection, tap


@pytest.mark.both_reply_modes
async def test_workers_end_under_load_and_no_request_of_a_bundle_fails(
    make_model: Make, serving: Serve, spawn: Async, broker: Broker
) -> None:
    make_model("double", toml=SMALL)
    gateway, worker = await serving(**LONG)
    connection, tap = await _tapped(broker)
    crowd = Crowd(gateway)
    for end in (worker.terminate, None):
        await crowd.more(tap)
        if end is None:
            worker.process.kill()
        else:
            end()
        await worker.ended()
        worker = await spawn("worker", broker)
        await crowd.more(tap)
    await crowd.leave()
    assert tap.parts >= 2 * tap.bundles > 0
    worker.terminate()
    await worker.ended()
    channel = await connection.channel()
    assert await channel.purge_queue("ml-model.double.interactive") == 0
    await connection.close()


@pytest.mark.both_reply_modes
async def test_a_request_that_kills_the_model_is_dead_alone_and_its_bundle_is_answered(
    make_model: Make, serving: Serve, broker: Broker
) -> None:
    make_model("double", POISON, toml=SMALL)
    gateway, _ = await serving(**LONG)
    connection, tap = await _tapped(broker)
    crowd = Crowd(gateway)
    await crowd.more(tap)
    dead = await gateway.infer("double", -1.0)
    assert dead.status_code == 500
    assert "each of the" in dead.json()["error"]
    await crowd.more(tap)
    await crowd.leave()
    channel = await connection.channel()
    kept: asyncio.Queue[Delivery] = asyncio.Queue()
    await channel.consume("ml-dead-letter.double", kept.put_nowait, no_ack=True)
    letter = await asyncio.wait_for(kept.get(), 20)
    assert letter.properties.content_type == "application/json"
    assert b"-1.0" in letter.body
    assert kept.empty()
    await connection.close()
