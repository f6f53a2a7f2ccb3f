"""A worker on a real broker, and somebody who asks it: what the tests of this folder share."""

from __future__ import annotations

import asyncio
import textwrap
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from modelmq import control
from modelmq.amqp import Channel, Connection, Delivery, Properties, Settled, connect
from modelmq.broker.management import Management
from modelmq.broker.management_values import Overview, PolicyInfo
from modelmq.control import Hello, WorkerReport
from modelmq.events import Event
from modelmq.messages import (
    CANCEL_TYPE,
    CONTROL_EXCHANGE,
    DIRECT_REPLY_TO,
    HELLO_TYPE,
    JSON,
    MODEL_EXCHANGE,
    REPLY_EXCHANGE,
    ReplyMode,
)
from modelmq.retry_ladder import RUNGS_MS, queue_of
from modelmq.runtimes import scan
from modelmq.settings import BrokerSettings, Settings, TopologySettings, WorkerSettings
from modelmq.topology import build
from modelmq.topology_names import ModelRoute
from modelmq.worker.service import Worker

PATIENCE_S = 30.0
LADDER = tuple(map(queue_of, RUNGS_MS))
"""Left out where no model asks for a later try."""
LOWEST = RUNGS_MS[:4]

DOUBLE = """
    class Model:
        inputs = {"x": ("FP64", [-1])}
        outputs = {"y": ("FP64", [-1])}
        def predict(self, batch):
            return {"y": batch["x"] * 2}
"""


class Answer(NamedTuple):
    """A reply: its `status` header (empty for a success), its body, and how often it came."""

    status: str
    body: dict[str, Any]

    @property
    def values(self) -> list[float]:
        data: list[float] = self.body["outputs"][0]["data"]
        return data


def body_of(*values: float, **extra: Any) -> bytes:
    tensor = {"name": "x", "datatype": "FP64", "shape": [len(values)], "data": list(values)}
    return msgspec.json.encode({"inputs": [tensor], **extra})


class Asker:
    """A caller in a few lines of AMQP: publishes requests, gathers replies by correlation id."""

    def __init__(self, connection: Connection, channel: Channel) -> None:
        self.connection = connection
        self.channel = channel
        self.address = DIRECT_REPLY_TO
        self.replies: dict[str, list[Delivery]] = {}
        self._count = 0
        self._news = asyncio.Event()

    async def open(self, reply_mode: ReplyMode) -> None:
        await self.channel.confirm_select()
        if reply_mode == "queue":
            self.address = await self.channel.declare_queue(exclusive=True)
            await self.channel.declare_exchange(REPLY_EXCHANGE, "direct", durable=True)
            await self.channel.bind_queue(self.address, REPLY_EXCHANGE, self.address)
        await self.channel.consume(self.address, self._on_reply, no_ack=True)

    def _on_reply(self, delivery: Delivery) -> None:
        self.replies.setdefault(delivery.properties.correlation_id or "", []).append(delivery)
        self._news.set()

    async def send(self, key: str, body: bytes, **properties: Any) -> str:
        """Publish, wait until the broker has it in the queue; the correlation id."""
        settled: asyncio.Future[Settled] = asyncio.get_running_loop().create_future()
        name = self.publish(key, body, on_settled=settled.set_result, **properties)
        assert await asyncio.wait_for(settled, PATIENCE_S) is Settled.ACKED
        return name

    def publish(
        self, key: str, body: bytes, *, on_settled: Callable[[Settled], None] | None = None, **properties: Any
    ) -> str:
        """The same without waiting."""
        self._count += 1
        name = f"request-{self._count}"
        fields = {
            "content_type": JSON, "delivery_mode": 2, "correlation_id": name, "reply_to": self.address, **properties
        }  # fmt: skip
        self.channel.publish(MODEL_EXCHANGE, key, Properties(**fields), body, mandatory=True, on_settled=on_settled)
        return name

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for replies until they make the condition true."""
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                self._news.clear()
                await self._news.wait()

    async def answer(self, name: str) -> Answer:
        """The reply to a request that was sent."""
        await self.until(lambda: name in self.replies)
        reply = self.replies[name][0]
        status = str((reply.properties.headers or {}).get("status", ""))
        return Answer(status, msgspec.json.decode(reply.body))

    async def ask(self, key: str, *values: float, **properties: Any) -> Answer:
        return await self.answer(await self.send(key, body_of(*values), **properties))

    def cancel(self, name: str, **properties: Any) -> None:
        """Withdraw a request that was sent."""
        fields = {"type": CANCEL_TYPE, "correlation_id": name, "reply_to": self.address, **properties}
        self.channel.publish(CONTROL_EXCHANGE, "", Properties(**fields), b"")

    async def hello(self) -> WorkerReport:
        """What the one worker says of itself."""
        self._count += 1
        name = f"hello-{self._count}"
        properties = Properties(type=HELLO_TYPE, correlation_id=name, reply_to=self.address)
        body = control.encode(Hello("a test"))
        async with asyncio.timeout(PATIENCE_S):
            while name not in self.replies:  # its queue may not be bound yet
                self.channel.publish(CONTROL_EXCHANGE, "", properties, body)
                self._news.clear()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._news.wait(), 0.1)
        return control.decode_report(self.replies[name][0].body)

    async def messages(self, queue: str) -> list[Delivery]:
        """Everything that waits in a queue now; it stays there, and no consumer but this one may be on it."""
        channel = await self.connection.channel()
        found: list[Delivery] = []
        end = asyncio.Event()

        def on_delivery(delivery: Delivery) -> None:
            found.append(delivery)
            if delivery.properties.type == "the end":
                end.set()

        await channel.confirm_select()
        channel.publish("", queue, Properties(type="the end"), b"")
        await channel.consume(queue, on_delivery)
        await asyncio.wait_for(end.wait(), PATIENCE_S)
        found = [each for each in found if each.properties.type != "the end" or channel.ack(each.delivery_tag)]
        await channel.close()
        return found


class Running:
    """A worker in this process, with everything it told."""

    def __init__(self, settings: Settings) -> None:
        self.events: list[Event] = []
        self.news = asyncio.Event()
        self.stopping = asyncio.Event()
        self.ready = asyncio.Event()
        self.worker = Worker(settings, self._emit)
        self.task = asyncio.create_task(self.worker.run(self.stopping, self.ready.set))

    def _emit(self, event: Event) -> None:
        self.events.append(event)
        self.news.set()

    def of(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.events if type(event) is kind]

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for events until they make the condition true."""
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                self.news.clear()
                await self.news.wait()

    async def stop(self) -> None:
        self.stopping.set()
        await asyncio.wait_for(self.task, PATIENCE_S)


@pytest.fixture
def models_dir(tmp_path: Path) -> Path:
    return tmp_path / "models"


@pytest.fixture
def make_model(models_dir: Path) -> Callable[..., None]:
    """A Python model in the models folder: code, and lines for the model.toml beside its versions."""

    def make(name: str, code: str = DOUBLE, *, version: str = "1", toml: str = "") -> None:
        folder = models_dir / name / version
        folder.mkdir(parents=True)
        (folder / "model.py").write_text(textwrap.dedent(code))
        (models_dir / name / "model.toml").write_text(toml)

    return make


@pytest.fixture
def settings_of(vhost: Any, models_dir: Path, tmp_path: Path, reply_mode: ReplyMode) -> Callable[..., Settings]:
    options = vhost.options(name="test-worker")
    credentials = options.credentials()
    endpoint = options.endpoints[0]

    def make(**worker: Any) -> Settings:
        return Settings(
            models_dir=str(models_dir),
            state_dir=str(tmp_path / "state"),
            broker=BrokerSettings(
                hosts=(f"{endpoint.host}:{endpoint.port}",),
                vhost=vhost.name,
                username=credentials.username,
                password=credentials.password,
            ),
            worker=WorkerSettings(**worker),
            topology=TopologySettings(reply_mode=reply_mode),
        )

    return make


@pytest.fixture
async def asker(vhost: Any, reply_mode: ReplyMode) -> AsyncIterator[Asker]:
    connection = await connect(vhost.options(name="test-asker"))
    asker = Asker(connection, await connection.channel())
    await asker.open(reply_mode)
    yield asker
    await connection.close()


@pytest.fixture
def declare(asker: Asker, vhost: Any, models_dir: Path) -> Callable[..., Awaitable[None]]:
    """Exchanges, queues and bindings for the models in the folder, as the topology says, but without users."""

    async def declare(*, without: Iterable[str] = LADDER, queue_type: str = "quorum") -> None:
        models: dict[str, ModelRoute] = {}
        for source in scan(models_dir).models:
            known = models.get(source.name)
            versions = (*known.versions, source.version) if known else (source.version,)
            models[source.name] = ModelRoute(source.name, versions, source.settings.queue, source.settings.routing_key)
        settings = TopologySettings(queue_type=queue_type)  # type: ignore[arg-type]
        version = Overview(vhost.node.version).version
        topology = build(settings, vhost.name, models.values(), broker_version=version)
        channel = await asker.connection.channel()
        for exchange in topology.exchanges:
            await channel.declare_exchange(exchange.name, exchange.type, durable=True)
        for queue in topology.queues:
            if queue.name not in without:
                arguments = {"x-queue-type": queue.type}
                await channel.declare_queue(queue.name, durable=True, arguments=arguments)
        for binding in topology.bindings:
            if binding.destination not in without:
                await channel.bind_queue(
                    binding.destination, binding.source, binding.routing_key, arguments=dict(binding.arguments)
                )
        await channel.close()

    return declare


@pytest.fixture
def ladder(declare: Callable[..., Awaitable[None]], vhost: Any) -> Callable[..., Awaitable[None]]:
    """The same with policies, and the lowest rungs of the ladder; the definitions of some may be changed, by name."""

    async def put(**changed: dict[str, Any]) -> None:
        node = vhost.node
        await declare(without=LADDER[len(LOWEST) :])
        topology = build(TopologySettings(), vhost.name, (), broker_version=Overview(node.version).version)
        with Management(node.management_url, node.admin_username, node.admin_password) as admin:
            for policy in topology.policies:
                if policy.name not in LADDER[len(LOWEST) :]:
                    definition = policy.definition | changed.get(policy.name, {})
                    made = PolicyInfo(policy.name, policy.pattern, policy.apply_to, definition, policy.priority)
                    admin.put_policy(vhost.name, made)

    return put


@pytest.fixture
async def start_worker(settings_of: Callable[..., Settings]) -> AsyncIterator[Callable[..., Awaitable[Running]]]:
    started: list[Running] = []

    async def start(*, wait: bool = True, **worker: Any) -> Running:
        running = Running(settings_of(**worker))
        started.append(running)
        if wait:
            waiting = asyncio.create_task(running.ready.wait())
            await asyncio.wait([running.task, waiting], timeout=PATIENCE_S, return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            if running.task.done():
                running.task.result()
            assert running.ready.is_set(), running.events
        return running

    yield start
    for running in started:
        if not running.task.done():
            await running.stop()


@pytest.fixture
def wait_for_file() -> Callable[[Path], Awaitable[None]]:
    """Another process's signal."""

    async def wait(path: Path) -> None:
        end = time.monotonic() + PATIENCE_S
        while not path.exists():  # noqa: ASYNC240 - another process makes it, which gives no other signal
            assert time.monotonic() < end, f"{path} did not appear"
            await asyncio.sleep(0.01)

    return wait


@pytest.fixture
def request_body() -> Callable[..., bytes]:
    return body_of
