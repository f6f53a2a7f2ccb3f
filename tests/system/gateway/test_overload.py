"""More is asked than a model can do, as its callers see it: who would wait in vain is told at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from modelmq.amqp import Properties, Settled, connect
from modelmq.broker.node import RunningNode
from modelmq.events import BrokerBlocked, RequestAnswered
from modelmq.messages import MODEL_EXCHANGE
from tests.conftest import Vhost
from tests.nodes import order

from .conftest import PATIENCE_S, SLOW, Broker, Running, Serve, body_of, until, values_of

pytestmark = pytest.mark.broker
Async = Callable[..., Awaitable[Any]]
Make = Callable[..., None]

SLEEPER = """
    import time

    class Model:
        inputs = {"x": ("FP64", [-1])}
        outputs = {"y": ("FP64", [-1])}
        def predict(self, batch):
            time.sleep(SECONDS)
            return {"y": batch["x"] * 2}
"""
DEADLINE = {"Inference-Timeout-Ms": "1000"}


def predicted_s(gateway: Running) -> float:
    return gateway.gateway._backlogs.wait_s("slow", "interactive", time.monotonic())


@pytest.mark.both_brokers
async def test_who_would_wait_past_the_deadline_is_refused_at_once(make_model: Make, serving: Serve) -> None:
    make_model("slow", SLEEPER.replace("SECONDS", "0.1"), toml="max_batch_size = 2\n")
    gateway, _ = await serving()
    gateway.http._transport._pool._max_connections = 1000  # type: ignore[attr-defined]
    waiting = [asyncio.create_task(gateway.infer("slow", each)) for each in range(120)]
    await until(lambda: gateway.asked == len(waiting) and predicted_s(gateway) > 2)

    before, asked = len(gateway.of(RequestAnswered)), gateway.asked
    refused = await gateway.infer("slow", 1, headers=DEADLINE)
    assert gateway.asked == asked
    assert refused.status_code == 429, refused.text
    assert 1 <= int(refused.headers["retry-after"]) <= 6
    assert "Model slow would take about" in refused.json()["error"]
    assert [each.code for each in gateway.of(RequestAnswered)[before:]].count("overloaded") == 1

    patient = await gateway.infer("slow", 1, headers={"Inference-Timeout-Ms": "30000"})
    assert patient.status_code == 200
    assert [each.status_code for each in await asyncio.gather(*waiting)] == [200] * 120

    assert predicted_s(gateway) < 1
    assert (await gateway.infer("slow", 1, headers=DEADLINE)).status_code == 200


class Alarm(NamedTuple):
    """What rabbitmqctl calls to set a limit of the node, too low and as it was."""

    call: str
    short: str
    enough: str


MEMORY = Alarm("vm_memory_monitor:set_vm_memory_high_watermark", "0.0000001", "0.9")
DISK = Alarm("rabbit_disk_monitor:set_disk_free_limit", "1000000000000000", "50000000")


@pytest.fixture(params=[MEMORY, DISK], ids=["memory", "disk"])
def short(request: pytest.FixtureRequest, node: RunningNode) -> Iterator[Callable[[bool], None]]:
    """Makes the node short of something, or not; this process has the node to itself."""
    alarm: Alarm = request.param

    def limit(short: bool) -> None:
        order(node.directory, f"{alarm.call}({alarm.short if short else alarm.enough}).")

    yield limit
    limit(False)


@pytest.mark.both_brokers
async def test_an_alarm_is_503_at_once_and_what_was_accepted_is_answered_behind_it(
    make_model: Make, serving: Serve, short: Callable[[bool], None], tmp_path: Path
) -> None:
    make_model("slow", SLOW)
    gateway, _ = await serving(confirm_timeout_s=3600.0)  # so that whoever waits for a confirm waits for too long
    accepted = [asyncio.create_task(gateway.infer("slow", 100))]
    await until((tmp_path / "entered").exists)
    accepted += [asyncio.create_task(gateway.infer("slow", each)) for each in range(9)]
    await gateway.until_confirmed(10)

    await asyncio.to_thread(short, True)
    await gateway.until(lambda: any(event.blocked for event in gateway.of(BrokerBlocked)))
    (tmp_path / "open").touch()
    for _ in range(20):
        refused = await gateway.infer("slow", 1)
        assert refused.status_code == 503
        assert refused.headers["retry-after"]
        assert "short of memory or disk" in refused.json()["error"]
    await asyncio.to_thread(short, False)
    assert [values_of(await each) for each in accepted] == [[200.0], *([2.0 * each] for each in range(9))]
    await gateway.until_status("/v2/health/ready", 200)
    assert values_of(await gateway.infer("slow", 21)) == [42]


async def test_with_full_lanes_interactive_goes_first_and_bulk_has_its_share(
    make_model: Make, declare: Async, spawn: Async, broker: Broker
) -> None:
    """Both queues are filled before the worker comes: in the order of answers nobody starves."""
    make_model("double", SLEEPER.replace("SECONDS", "0.005"), toml="max_batch_size = 4\n")
    await declare(broker)
    connection = await connect(broker.options)
    channel = await connection.channel()
    await channel.confirm_select()
    answered: list[str] = []
    news = asyncio.Event()

    def on_reply(delivery: Any) -> None:
        answered.append(delivery.properties.correlation_id.partition("-")[0])
        news.set()

    await channel.consume("amq.rabbitmq.reply-to", on_reply, no_ack=True)
    count = 400
    settled: list[Settled] = []
    for number in range(count):
        for key in ("double", "double.bulk"):
            properties = Properties(correlation_id=f"{key}-{number}", reply_to="amq.rabbitmq.reply-to")
            channel.publish(MODEL_EXCHANGE, key, properties, body_of(1), on_settled=settled.append)
    await until(lambda: len(settled) == 2 * count)
    assert set(settled) == {Settled.ACKED}
    await spawn("worker", broker)
    async with asyncio.timeout(PATIENCE_S):
        while len(answered) < 2 * count:
            news.clear()
            await news.wait()
    await connection.close()

    last = len(answered) - answered[::-1].index("double")
    while_both = answered[:last]
    bulk = while_both.count("double.bulk")
    assert bulk >= 0.05 * last - 8, (bulk, last)
    assert bulk <= 0.25 * last, (bulk, last)
    first = answered[: last // 2]
    assert "double" in first
    assert "double.bulk" in first


@pytest.fixture
def little(vhost: Vhost, _admin: Any) -> Callable[[bool], None]:
    """Sets a policy by which a model's queue takes one message, or takes it away."""

    def limit(little: bool) -> None:
        definition = {"max-length": 1, "overflow": "reject-publish"}
        policy = {"pattern": r"^ml-model\.slow\.", "apply-to": "queues", "definition": definition}
        _admin.call("PUT" if little else "DELETE", f"policies/{vhost.name}/little", policy)

    return limit


@pytest.mark.both_brokers
async def test_a_queue_that_refuses_though_it_is_not_full_is_503(
    make_model: Make, serving: Serve, little: Callable[[bool], None], tmp_path: Path
) -> None:
    """Full by the broker's word and not by ours: here somebody's policy allows less, elsewhere it has no leader."""
    make_model("slow", SLOW, toml="max_batch_size = 1\n")
    gateway, _ = await serving()
    await asyncio.to_thread(little, True)
    holding = asyncio.create_task(gateway.infer("slow", 100))
    await until((tmp_path / "entered").exists)
    asked = [asyncio.create_task(gateway.infer("slow", each)) for each in range(5)]
    await gateway.until_confirmed(2)
    # How many come before a quorum queue says that it is full, is not told.
    asked += [asyncio.create_task(gateway.infer("slow", each)) for each in range(10)]
    await gateway.until(lambda: any(each.code == "unavailable" for each in gateway.of(RequestAnswered)))
    await asyncio.to_thread(little, False)
    (tmp_path / "open").touch()
    answers = await asyncio.gather(holding, *asked)
    refused = [each for each in answers if each.status_code != 200]
    assert {each.status_code for each in refused} == {503}
    assert all(each.headers["retry-after"] and "its queue is not full" in each.json()["error"] for each in refused)
    assert answers[0].status_code == 200
