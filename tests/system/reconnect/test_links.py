"""Gateways, workers and clients whose link, consumer or rights are taken away: they come back, in the same process."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

import modelmq
from modelmq.broker.node import RunningNode
from modelmq.errors import Unavailable
from tests.nodes import order
from tests.system.reconnect.conftest import CONFIRM_S, rights, serving
from tests.system.rotation.conftest import MODEL, body_of, load, over_amqp, over_http, until

pytestmark = pytest.mark.broker

HEARTBEAT_S = 1.0
QUEUE = f"ml-model.{MODEL}.interactive"

SLOW = """
    import time

    class Model:
        inputs = {"x": ("FP64", [-1])}
        outputs = {"y": ("FP64", [-1])}
        def predict(self, batch):
            if batch["x"][0] == 100 and not FIRST:
                FIRST.append(1)
                time.sleep(6)
            return {"y": batch["x"] * 2}

    FIRST = []
"""


async def test_a_link_that_falls_silent_is_found_and_replaced(
    installation: Any, spawn: Any, line: Any, http: Any
) -> None:
    """Within two heartbeats; what was under way is answered."""
    links = {"worker": await line(), "gateway": await line()}
    children = {}
    for service, link in links.items():
        children[service] = await spawn(
            service,
            MODELMQ_BROKER_HOSTS=link.host,
            MODELMQ_BROKER_HEARTBEAT_S=str(HEARTBEAT_S),
            **CONFIRM_S,
        )
    gateway = children["gateway"]
    await serving(http, gateway, MODEL)
    async with load(over_http(http, lambda: gateway.address)) as asked:
        for service, link in links.items():
            link.fall_silent()
            fell_silent = time.monotonic()
            child = children[service]
            await until(lambda child=child: child.lines("BrokerDisconnected"))
            assert time.monotonic() - fell_silent < 2 * HEARTBEAT_S + 2
            await asked.more()
    for child in children.values():
        (told,) = child.lines("BrokerDisconnected")
        assert "was silent for" in told["reason"]
        assert child.process.poll() is None


@pytest.mark.both_brokers
async def test_a_queue_that_is_deleted_and_made_anew_is_consumed_again(
    installation: Any, spawn: Any, http: Any
) -> None:
    """The broker cancels the consumer, and says so."""
    worker, gateway = await spawn("worker"), await spawn("gateway")
    await serving(http, gateway, MODEL)
    ask = over_http(http, lambda: gateway.address)
    assert await ask(1) == [2]
    with installation.management as management:
        management.delete_queue(installation.settings.broker.vhost, QUEUE)
    await until(lambda: [line for line in worker.lines("QueueMissing") if QUEUE in str(line)])
    missed = await http.post(f"{gateway.address}/v2/models/{MODEL}/infer", content=body_of(1))
    assert missed.status_code == 404
    installation.provision()
    assert await ask(3) == [6]
    ends = [line["reason"] for child in (worker, gateway) for line in child.lines("BrokerDisconnected")]
    # RabbitMQ 4.3 closes the connection that consumes from a queue in the moment in which that is deleted.
    assert [reason for reason in ends if "failed consuming from quorum queue" not in reason] == []


async def test_rights_that_are_taken_away_and_given_back(installation: Any, spawn: Any, admin: Any, http: Any) -> None:
    """A gateway and a client say so at once; a worker loses no request; all serve again without a restart."""
    worker, gateway = await spawn("worker"), await spawn("gateway")
    await serving(http, gateway, MODEL)
    ask = over_http(http, lambda: gateway.address)
    async with modelmq.Client(installation.client_url()) as client:
        assert await over_amqp(client)(1.0) == [2]
        for service, asks in (("gateway", ask), ("client", over_amqp(client))):
            before = rights(installation, admin, service, write="^$")
            break_off(installation, admin, service)
            with pytest.raises((AssertionError, Unavailable), match=r"may not|refused|ACCESS"):
                await until_refused(asks)
            rights(installation, admin, service, **before)
            await until_answered(asks)
        before = rights(installation, admin, "worker-default", write="^$")
        break_off(installation, admin, "worker-default")
        waiting = [asyncio.create_task(ask(float(value))) for value in range(50)]
        await until(lambda: len(worker.lines("ConsumerEnded")) >= 3)
        rights(installation, admin, "worker-default", **before)
        assert await asyncio.gather(*waiting) == [[2.0 * value] for value in range(50)]
    assert (worker.process.poll(), gateway.process.poll()) == (None, None)
    with installation.management as management:
        depths = {queue.name: queue.depth for queue in management.queue_totals(installation.settings.broker.vhost)}
    assert {name: depth for name, depth in depths.items() if "dead" in name and depth} == {}


def break_off(installation: Any, admin: Any, service: str) -> None:
    """A channel that is in use remembers what it was allowed; a new one asks again."""
    admin.call("DELETE", f"connections/username/{installation.user(service)}")


async def until_refused(asks: Any) -> None:
    """The end of the old connection may come in between."""
    async with asyncio.timeout(60):
        while True:
            try:
                await asks(1.0)
            except (AssertionError, Unavailable) as error:
                if "connection" not in str(error):
                    raise
            await asyncio.sleep(0.05)


async def until_answered(asks: Any) -> None:
    async with asyncio.timeout(60):
        while True:
            try:
                assert await asks(2.0) == [4]
            except (AssertionError, Unavailable):
                await asyncio.sleep(0.05)
            else:
                return


@pytest.mark.both_brokers
async def test_a_consumer_that_the_broker_times_out_is_replaced(
    installation: Any, spawn: Any, http: Any, node: RunningNode
) -> None:
    """3.10 closes its channel, 4.3 cancels it; what it held comes back and is answered."""
    settings = "application:set_env(rabbit, channel_tick_interval, {tick}), {set}, ok."
    timed = "application:set_env(rabbit, consumer_timeout, 2000)"
    usual = "application:unset_env(rabbit, consumer_timeout)"
    installation.add_model("slow", SLOW)
    order(node.directory, settings.format(tick=200, set=timed))
    try:
        installation.provision()
        worker, gateway = await spawn("worker"), await spawn("gateway")
        await serving(http, gateway, "slow")
        answer = await http.post(f"{gateway.address}/v2/models/slow/infer", content=body_of(100))
        assert answer.status_code == 200, answer.text
        assert answer.json()["outputs"][0]["data"] == [200]
    finally:
        order(node.directory, settings.format(tick=60_000, set=usual))
    assert worker.lines("ConsumerEnded")
    assert worker.lines("BrokerDisconnected") == []
