"""A queue that does not confirm beside one that does, on one connection: RabbitMQ's flow control is per connection."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from typing import Any

import pytest

from modelmq.broker.node import RunningNode
from modelmq.client import window
from modelmq.errors import Expired, Unavailable
from modelmq.messages import MODEL_EXCHANGE
from tests.nodes import order

pytestmark = [pytest.mark.broker, pytest.mark.both_brokers]

SLOW = "slow"
SLOW_QUEUE = "ml-model.slow.interactive"


class Leader:
    """The process that leads a quorum queue of a one-node broker, told to stand still and to go on."""

    def __init__(self, node: RunningNode, vhost: str) -> None:
        self._node = node
        self._name = f"{vhost}_{SLOW_QUEUE}"

    def suspend(self) -> None:
        self._tell("suspend")

    def resume(self) -> None:
        self._tell("resume")

    def _tell(self, what: str) -> None:
        order(self._node.directory, f'sys:{what}(list_to_existing_atom("{self._name}")).')


@pytest.fixture
def leader(node: RunningNode, vhost: Any) -> Iterator[Leader]:
    made = Leader(node, vhost.name)
    yield made
    made.resume()


@pytest.mark.parametrize("met", [True, False], ids=["met", "first"])
async def test_a_queue_that_does_not_confirm_slows_no_other_model(
    broker: Any, asking: Any, leader: Leader, met: bool
) -> None:
    """Neither one that the channel has sent to before, nor one that it never did."""
    await broker.provision(queue_type="quorum")
    await broker.channel.declare_queue(SLOW_QUEUE, durable=True, arguments={"x-queue-type": "quorum"})
    await broker.channel.bind_queue(SLOW_QUEUE, MODEL_EXCHANGE, SLOW)
    await broker.echo()
    asker = await asking(unconfirmed=window.LIMIT, confirm_timeout_s=1.0)
    if met:
        for _ in range(2):
            (warm,) = asker.start(1, model=SLOW)
            await _confirmed(asker)
            warm.cancel()
            await asyncio.wait([warm])
        assert SLOW in asker.requester._shards[0]._outbox._scouts._known
    await asyncio.to_thread(leader.suspend)

    began = time.monotonic()
    stuck = asker.start(200, model=SLOW, timeout_s=30.0)
    waits = []
    while time.monotonic() - began < 3.0:  # before, when and after the queue is given up
        asked = time.monotonic()
        assert await asker.ask(b"other") == b"other"
        waits.append(time.monotonic() - asked)
    assert max(waits) < 1.0, max(waits)
    assert len(waits) > 50

    results = await asyncio.gather(*stuck, return_exceptions=True)
    assert all(isinstance(each, Unavailable) and each.retry_after_s for each in results), results
    late = asker.start(10, model=SLOW)
    await asyncio.sleep(0)
    assert sum(each.done() for each in late) >= 9, "all but one now and then, which is a trial"
    for each in late:
        with pytest.raises(Unavailable, match=r"does not confirm|did not confirm"):
            await each

    await asyncio.to_thread(leader.resume)
    with pytest.raises(Expired):  # it is confirmed, and nobody answers it
        await _until_confirmed(asker)


async def _confirmed(asker: Any) -> None:
    (shard,) = asker.requester._shards
    async with asyncio.timeout(30):
        while [each.state for each in shard._pending] != ["confirmed"]:  # noqa: ASYNC110 - nobody is told
            await asyncio.sleep(0.005)


async def _until_confirmed(asker: Any) -> None:
    async with asyncio.timeout(30):
        while True:
            with contextlib.suppress(Unavailable):
                await asker.ask(b"back", model=SLOW, timeout_s=0.5)
            await asyncio.sleep(0.05)  # the queue comes back by itself, and tells nobody
