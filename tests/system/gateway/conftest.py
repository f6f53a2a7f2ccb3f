"""A gateway and workers on a real broker: what the tests of this folder share."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import msgspec
import pytest

from modelmq.amqp import ConnectionOptions, connect
from modelmq.client.shard import Shard
from modelmq.events import Event
from modelmq.gateway.service import Gateway
from modelmq.messages import ReplyMode
from modelmq.retry_ladder import RUNGS_MS, queue_of
from modelmq.runtimes import scan
from modelmq.settings import BrokerSettings, GatewaySettings, Settings, TopologySettings
from modelmq.topology import build
from modelmq.topology_names import ModelRoute
from tests.service_log import lines_of

PATIENCE_S = 30.0

Serve = Callable[..., Awaitable[tuple["Running", "Child"]]]
"""Settings of the gateway to the gateway and the worker."""

DOUBLE = """
    class Model:
        inputs = {"x": ("FP64", [-1])}
        outputs = {"y": ("FP64", [-1])}
        def predict(self, batch):
            return {"y": batch["x"] * 2}
"""

SLOW = """
    import time
    from pathlib import Path

    class Model:
        inputs = {"x": ("FP64", [-1])}
        outputs = {"y": ("FP64", [-1])}
        def predict(self, batch):
            if batch["x"][0] == 100:
                Path("FOLDER/entered").touch()
                while not Path("FOLDER/open").exists():
                    time.sleep(0.005)
            return {"y": batch["x"] * 2}
"""


class Broker(NamedTuple):
    """Where everything of one test connects to."""

    options: ConnectionOptions
    settings: BrokerSettings


def body_of(*values: float, **extra: Any) -> bytes:
    tensor = {"name": "x", "datatype": "FP64", "shape": [len(values)], "data": list(values)}
    return msgspec.json.encode({"inputs": [tensor], **extra})


def values_of(response: httpx.Response) -> list[float]:
    assert response.status_code == 200, response.text
    data: list[float] = response.json()["outputs"][0]["data"]
    return data


@pytest.fixture
def broker(vhost: Any) -> Broker:
    return broker_at(vhost.options("test"), vhost.name)


def broker_at(options: ConnectionOptions, vhost: str) -> Broker:
    credentials, endpoint = options.credentials(), options.endpoints[0]
    hosts = (f"{endpoint.host}:{endpoint.port}",)
    return Broker(options, BrokerSettings(hosts, vhost, credentials.username, credentials.password))


@pytest.fixture
def models_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    return folder


@pytest.fixture
def make_model(models_dir: Path, tmp_path: Path) -> Callable[..., None]:
    """A Python model in a models folder: code, and lines for model.toml."""

    def make(name: str, code: str = DOUBLE, *, version: str = "1", toml: str = "", into: Path | None = None) -> None:
        folder = (into or models_dir) / name / version
        folder.mkdir(parents=True)
        (folder / "model.py").write_text(textwrap.dedent(code).replace("FOLDER", str(tmp_path)))
        (folder.parent / "model.toml").write_text(toml)

    return make


@pytest.fixture
def declare(models_dir: Path) -> Callable[..., Awaitable[None]]:
    """Exchanges, queues and bindings for the models in the folder, as the topology says, but without users."""

    async def declarer(broker: Broker, *routes: ModelRoute) -> None:
        models = {route.name: route for route in routes}
        for source in scan(models_dir).models:
            known = models.get(source.name)
            versions = (*known.versions, source.version) if known else (source.version,)
            models[source.name] = ModelRoute(source.name, versions, source.settings.queue, source.settings.routing_key)
        topology = build(TopologySettings(), "any", models.values())
        connection = await connect(broker.options)
        channel = await connection.channel()
        for exchange in topology.exchanges:
            await channel.declare_exchange(exchange.name, exchange.type, durable=True)
        without = {queue_of(rung_ms) for rung_ms in RUNGS_MS}  # nothing is tried again here
        for queue in topology.queues:
            if queue.name in without:
                continue
            await channel.declare_queue(queue.name, durable=True, arguments={"x-queue-type": queue.type})
        for binding in topology.bindings:
            if binding.destination in without:
                continue
            await channel.bind_queue(
                binding.destination, binding.source, binding.routing_key, arguments=dict(binding.arguments)
            )
        await connection.close()

    return declarer


class Running:
    """A gateway in this process, a client of it, and everything it told."""

    def __init__(self, gateway: Gateway, http: httpx.AsyncClient, events: list[Event], news: asyncio.Event) -> None:
        self.gateway = gateway
        self.http = http
        self.events = events
        self.stopping = asyncio.Event()
        self._news = news

    def of(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.events if type(event) is kind]

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for events until they make the condition true."""
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                self._news.clear()
                await self._news.wait()

    async def until_status(self, path: str, status: int) -> httpx.Response:
        """Ask until the answer has this status."""
        return await until_status(self.http, path, status)

    async def until_served(self, models_dir: Path) -> None:
        """Ask until every model of this folder is ready."""
        for model in scan(models_dir).models:
            await self.until_status(f"/v2/models/{model.name}/versions/{model.version}/ready", 200)

    async def until_confirmed(self, at_least: int) -> None:
        """Wait until so many requests or more are under way, and the broker has confirmed every one."""

        def confirmed() -> bool:
            states = [request.state for request in self._shard._pending]
            return len(states) >= at_least and set(states) == {"confirmed"}

        await until(confirmed)

    @property
    def asked(self) -> int:
        """How many requests it has passed on: one that is refused at once is not among them."""
        asked: int = self.gateway._requester._asked
        return asked

    async def infer(self, model: str, *values: float, **arguments: Any) -> httpx.Response:
        return await self.http.post(f"/v2/models/{model}/infer", content=body_of(*values), **arguments)

    def break_off(self) -> None:
        """End its connection to RabbitMQ as a network that fails does."""
        connection = self._shard._link.connection
        assert connection is not None
        connection.abort()

    @property
    def _shard(self) -> Shard:
        """Its one connection to RabbitMQ, and the requests that wait there; the gateway itself shows neither."""
        (shard,) = self.gateway._requester._shards
        return shard


async def until(condition: Callable[[], bool]) -> None:
    """For what gives no other signal."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.005)


async def until_status(http: httpx.AsyncClient, path: str, status: int) -> httpx.Response:
    end = time.monotonic() + PATIENCE_S
    while True:
        response = await http.get(path)
        if response.status_code == status:
            return response
        assert time.monotonic() < end, f"{path} stays {response.status_code}: {response.text}"
        await asyncio.sleep(0.02)


@pytest.fixture
async def start_gateway(reply_mode: ReplyMode) -> AsyncIterator[Callable[..., Awaitable[Running]]]:
    started: list[tuple[Running, asyncio.Task[None]]] = []

    async def start(broker: Broker, *, wait: bool = True, **gateway: Any) -> Running:
        events: list[Event] = []
        news, ready = asyncio.Event(), asyncio.Event()

        def emit(event: Event) -> None:
            events.append(event)
            news.set()

        settings = Settings(
            broker=broker.settings,
            gateway=GatewaySettings(**{"port": 0, **gateway}),
            topology=TopologySettings(reply_mode=reply_mode),
        )
        own = Gateway(settings, emit)
        http = httpx.AsyncClient(timeout=PATIENCE_S, trust_env=False)
        running = Running(own, http, events, news)
        task = asyncio.create_task(own.run(running.stopping, ready.set))
        started.append((running, task))
        waiting = asyncio.create_task(ready.wait())
        if wait:
            await asyncio.wait([task, waiting], timeout=PATIENCE_S, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if task.done():
            task.result()
        assert ready.is_set() or not wait, events
        await until(lambda: own.port != 0)
        http.base_url = httpx.URL(f"http://127.0.0.1:{own.port}")
        return running

    yield start
    for running, task in started:
        await running.http.aclose()
        running.stopping.set()
        await asyncio.wait_for(task, PATIENCE_S)


class Child:
    """A service as its own process, with its log."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self.log = log

    def lines(self) -> list[dict[str, Any]]:
        return lines_of(self.log)

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    async def ended(self) -> int:
        return await asyncio.to_thread(self.process.wait, PATIENCE_S)


@pytest.fixture
def spawn(models_dir: Path, tmp_path: Path, reply_mode: ReplyMode) -> Iterator[Callable[..., Awaitable[Child]]]:
    """`python -m modelmq.<service>`, once it says that it is ready."""
    children: list[Child] = []

    async def spawner(service: str, broker: Broker, **environ: str) -> Child:
        reading, writing = os.pipe()
        ours = {
            "MODELMQ_MODELS_DIR": str(models_dir),
            "MODELMQ_STATE_DIR": str(tmp_path / "state"),
            "MODELMQ_BROKER_HOSTS": ",".join(broker.settings.hosts),
            "MODELMQ_BROKER_VHOST": broker.settings.vhost,
            "MODELMQ_BROKER_USERNAME": broker.settings.username,
            "MODELMQ_BROKER_PASSWORD": broker.settings.password,
            "MODELMQ_GATEWAY_PORT": "0",
            "MODELMQ_TOPOLOGY_REPLY_MODE": reply_mode,
            "MODELMQ_READY_FD": str(writing),
        }
        log = tmp_path / f"{service}-{len(children)}.log"
        with log.open("wb") as stream:
            process = subprocess.Popen(  # noqa: ASYNC220 - the tests end it by its number, also without a loop
                [sys.executable, "-m", f"modelmq.{service}"],
                env={**os.environ, **ours, **environ},
                pass_fds=(writing,),
                stderr=stream,
            )
        children.append(Child(process, log))
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            line = await asyncio.wait_for(asyncio.to_thread(pipe.readline), 60)
        assert line == b"ready\n", log.read_text()
        return children[-1]

    yield spawner
    for child in children:
        child.process.kill()
        child.process.wait(timeout=10)


@pytest.fixture
def serving(declare: Any, spawn: Any, start_gateway: Any, broker: Broker, models_dir: Path) -> Serve:
    """Serves the models made so far by a worker process and a gateway in this one; returns once every one is ready."""

    async def serve(**gateway: Any) -> tuple[Running, Child]:
        await declare(broker)
        worker: Child = await spawn("worker", broker)
        running: Running = await start_gateway(broker, **gateway)
        await running.until_served(models_dir)
        return running, worker

    return serve


@pytest.fixture
def wait_for_file() -> Callable[[Path], Awaitable[None]]:
    """Another process's signal."""

    async def wait(path: Path) -> None:
        end = time.monotonic() + PATIENCE_S
        while not path.exists():  # noqa: ASYNC240 - another process makes it, which gives no other signal
            assert time.monotonic() < end, f"{path} did not appear"
            await asyncio.sleep(0.01)

    return wait
