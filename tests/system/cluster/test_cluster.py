"""Gateways, workers and clients on a cluster of three nodes that loses some of them."""

from __future__ import annotations

import asyncio
import base64
import secrets
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

import modelmq
from modelmq.amqp import Properties, Settled, connect, options_from_url
from modelmq.broker.readiness import amqp_answers
from modelmq.errors import Overloaded, Unavailable
from modelmq.messages import JSON, MODEL_EXCHANGE
from tests.cluster import Cluster
from tests.system.cluster.conftest import hosts_but, node_of, until_empty
from tests.system.rotation.conftest import MODEL, PATIENCE_S, body_of, load, over_amqp, over_http, until

pytestmark = pytest.mark.broker

Spawn = Callable[..., Awaitable[Any]]
CONFIRM_S = {"MODELMQ_GATEWAY_CONFIRM_TIMEOUT_S": "30"}
"""Longer than an election takes on a busy machine: what is unconfirmed then is not given up."""


def http() -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=None)
    return httpx.AsyncClient(timeout=60, trust_env=False, limits=limits)


def test_a_queue_is_on_all_nodes_and_has_another_leader_when_one_is_killed(cluster: Cluster) -> None:
    """What the others stand on."""
    cluster.manage("PUT", "queues/%2F/q", {"durable": True, "arguments": {"x-queue-type": "quorum"}})
    assert cluster.members("/", "q") == {0, 1, 2}
    killed = (cluster.leader("/", "q") + 1) % 3
    cluster.move_leader("/", "q", killed)
    cluster.kill(killed)
    assert not amqp_answers(cluster.nodes[killed].amqp_port)
    soon(lambda: leader_of(cluster) not in (None, killed))


@pytest.mark.both_brokers
def test_an_isolated_node_is_heard_by_none_until_it_is_healed(cluster: Cluster) -> None:
    cluster.isolate(2)
    assert cluster.evaluate(2, "nodes().") == "[]"
    assert cluster.evaluate(0, "nodes().") == "[n1@localhost]"
    if cluster.version.startswith("3."):  # paused, as it is in the minority
        soon(lambda: not amqp_answers(cluster.nodes[2].amqp_port))
    cluster.heal()
    cluster.wait_ready()
    soon(lambda: amqp_answers(cluster.nodes[2].amqp_port))


def leader_of(cluster: Cluster) -> int | None:
    try:
        return cluster.leader("/", "q")
    except LookupError:
        return None


def soon(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


async def until_serving(line: httpx.AsyncClient, gateway: Any, *models: str) -> None:
    for model in models:
        await until_status(line, f"{gateway.address}/v2/models/{model}/ready")


async def until_status(line: httpx.AsyncClient, url: str, status: int = 200) -> None:
    async with asyncio.timeout(60):
        while (await line.get(url)).status_code != status:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.05)


async def in_flight(line: httpx.AsyncClient, gateway: Any, count: int) -> None:
    async with asyncio.timeout(60):
        told = f"modelmq_requests_in_flight {count}.0"
        while told not in (await line.get(f"{gateway.address}/metrics")).text:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    ("cluster", "reply_mode"), [("system", "direct"), ("system", "queue"), ("4.3", "direct")], indirect=True
)
async def test_the_gateways_node_is_killed_with_200_requests_in_flight(
    cluster: Cluster, installation: Any, spawn: Spawn, tmp_path: Path, reply_mode: Any
) -> None:
    """What may run twice is answered, what may not gets a definite answer, and nobody else notices."""
    gateway = await spawn("gateway", **CONFIRM_S)
    killed = node_of(cluster, gateway)
    others = hosts_but(cluster, killed)
    worker = await spawn("worker", MODELMQ_BROKER_HOSTS=others)
    url = installation.client_url().replace(",".join(cluster.hosts), others)
    async with http() as line, modelmq.Client(url, reply_mode=reply_mode) as client:
        await until_serving(line, gateway, "gate", "once")

        async def post(model: str, value: float) -> httpx.Response:
            return await line.post(f"{gateway.address}/v2/models/{model}/infer", content=body_of(value))

        asked = [asyncio.create_task(post("gate", value)) for value in range(1, 201)]
        unsafe = [asyncio.create_task(post("once", value)) for value in range(1, 11)]
        elsewhere = [asyncio.create_task(client.infer("gate", {"x": [1000.0 + value]})) for value in range(50)]
        await in_flight(line, gateway, 210)
        # What the gateway has not published yet is sent when it is connected again, also if it may run only once.
        vhost = installation.settings.broker.vhost
        await until(lambda: cluster.messages(vhost, "ml-model.once.interactive") == 10)
        await asyncio.to_thread(cluster.kill, killed)
        refused = await asyncio.gather(*unsafe)
        (tmp_path / "open").touch()
        answers = await asyncio.gather(*asked)
        assert {answer.status_code for answer in refused} == {503}
        assert Counter(answer.status_code for answer in answers) == {200: 200}
        values = [answer.json()["outputs"][0]["data"] for answer in answers]
        assert values == [[2.0 * value] for value in range(1, 201)]
        for value, answer in enumerate(await asyncio.gather(*elsewhere)):
            assert answer["y"] == [2 * (1000.0 + value)]
    await until_empty(cluster, installation)
    runs = Counter(value for value in (tmp_path / "once.ran").read_text().split() if value != "0")
    # Redelivered, but published once; the node may have died before it handed any of them out.
    assert max(runs.values(), default=0) <= 1 + len(worker.lines("BrokerDisconnected"))
    assert len(gateway.lines("BrokerConnected")) == 2
    assert len(worker.lines("BrokerDisconnected")) <= 3, worker.lines("BrokerDisconnected")


def forged(number: int, own: str) -> str:
    """An address that the broker never made, in one of several ways."""
    prefix = "amq.rabbitmq.reply-to."
    process, key = own.split(".")[-2:]
    raw = base64.b64decode(process)
    name = b"reply@%d" % (number + 1)
    elsewhere = raw[:3] + bytes([len(name)]) + name + raw[-12:] if raw[:3] == b"\x83Xw" else raw
    kinds = (
        f"{prefix}{secrets.token_urlsafe(12)}.{key}",
        f"{prefix}{base64.b64encode(elsewhere).decode()}.{key}",
        f"{prefix}{base64.b64encode(raw[:-4] + secrets.token_bytes(4)).decode()}.{secrets.token_urlsafe(8)}",
        f"{prefix}{base64.b64encode(bytes([131, 104, 2, number % 256])).decode()}.x",
        f"{prefix}{process[:-2]}.{key}",
    )
    return kinds[number % len(kinds)]


@pytest.mark.both_reply_modes
async def test_a_thousand_forged_reply_addresses_cost_nobody_an_answer(
    cluster: Cluster, installation: Any, spawn: Spawn, reply_mode: Any
) -> None:
    worker, gateway = await spawn("worker"), await spawn("gateway", **CONFIRM_S)
    url = installation.client_url()
    forger = await connect(options_from_url(url))
    channel = await forger.channel()
    await channel.confirm_select()
    told: asyncio.Queue[Settled] = asyncio.Queue()
    own = await address_of_the_brokers_making(cluster)
    async with http() as line, modelmq.Client(url, reply_mode=reply_mode) as client:
        await until_serving(line, gateway, MODEL)
        async with load(over_http(line, lambda: gateway.address)), load(over_amqp(client)):
            for number in range(1000):
                properties = Properties(content_type=JSON, correlation_id=f"f{number}", reply_to=forged(number, own))
                channel.publish(MODEL_EXCHANGE, MODEL, properties, body_of(1), on_settled=told.put_nowait)
            assert {await told.get() for _ in range(1000)} == {Settled.ACKED}
            await until(lambda: len(worker.lines("MessageRefused")) >= 600)  # the others are of nodes that there are
    await forger.close()
    await until_empty(cluster, installation)
    assert worker.lines("BrokerDisconnected") == []
    assert gateway.lines("BrokerDisconnected") == []


async def address_of_the_brokers_making(cluster: Cluster) -> str:
    """To be changed into others; whom it belonged to is gone."""
    connection = await connect(options_from_url(cluster.nodes[0].amqp_url))
    channel = await connection.channel()
    got: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    await channel.consume("amq.rabbitmq.reply-to", lambda _: None, no_ack=True)
    queue = await channel.declare_queue(exclusive=True)
    await channel.consume(queue, lambda delivery: got.set_result(delivery.properties.reply_to or ""), no_ack=True)
    channel.publish("", queue, Properties(reply_to="amq.rabbitmq.reply-to"), b"")
    address = await asyncio.wait_for(got, 30)
    await connection.close()
    return address


def patient(ask: Callable[[float], Awaitable[list[float]]]) -> Callable[[float], Awaitable[list[float]]]:
    """The Python client gives what is new one second to be confirmed, and says that it may be asked again."""

    async def until_told(value: float) -> list[float]:
        while True:
            try:
                return await ask(value)
            except (Unavailable, Overloaded) as error:
                await asyncio.sleep(error.retry_after_s or 0)

    return until_told


@pytest.mark.both_brokers
async def test_a_leader_moves_and_a_node_dies_under_load_and_no_request_fails(
    cluster: Cluster, installation: Any, spawn: Spawn
) -> None:
    worker, gateway = await spawn("worker"), await spawn("gateway", **CONFIRM_S)
    vhost, queue = installation.settings.broker.vhost, f"ml-model.{MODEL}.interactive"
    members = await asyncio.to_thread(cluster.members, vhost, queue)
    assert members == {0, 1, 2}
    async with http() as line, modelmq.Client(installation.client_url(), connections=2) as client:
        await until_serving(line, gateway, MODEL)
        async with load(over_http(line, lambda: gateway.address)) as asked, load(patient(over_amqp(client))):
            leader = await asyncio.to_thread(cluster.leader, vhost, queue)
            await asyncio.to_thread(cluster.move_leader, vhost, queue, (leader + 1) % 3)
            await asked.more()
            killed = node_of(cluster, worker)
            await asyncio.to_thread(cluster.kill, killed)
            await until(lambda: len(worker.lines("BrokerConnected")) == 2)
            await asked.more()
            leader = await asyncio.to_thread(cluster.leader, vhost, queue)
            assert leader != killed
    await until_empty(cluster, installation)
    assert (worker.process.poll(), gateway.process.poll()) == (None, None)
