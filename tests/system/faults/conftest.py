"""Workers that are killed at a named station, and callers of all kinds who have requests under way meanwhile."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pika
import pytest

from modelmq.client import Request, Requester
from modelmq.client.api import Client
from modelmq.client.replies import Rights
from modelmq.events import ignore
from modelmq.messages import DIRECT_REPLY_TO, MODEL_EXCHANGE, STATUS_HEADER
from modelmq.settings import Settings
from tests.system.worker.conftest import (  # noqa: F401 - the fixtures of a worker on a real broker
    Asker,
    asker,
    body_of,
    declare,
    ladder,
    make_model,
    models_dir,
    settings_of,
    start_worker,
    wait_for_file,
)

PATIENCE_S = 60.0
VICTIM = Path(__file__).with_name("worker_with_fault.py")


class Reply(NamedTuple):
    """What a plain AMQP caller got."""

    status: str
    body: bytes

    @property
    def values(self) -> list[float]:
        data: list[float] = msgspec.json.decode(self.body)["outputs"][0]["data"]
        return data


class PikaCaller(threading.Thread):
    """A producer of another library: publishes all, confirmed, then keeps every reply that comes, by request."""

    def __init__(self, url: str, model: str, values: Iterable[float]) -> None:
        super().__init__(name="pika", daemon=True)
        self.values = list(values)
        self.replies: list[list[Reply]] = [[] for _ in self.values]
        self.sent = threading.Event()
        self._finish = threading.Event()
        self._url = url
        self._model = model

    def run(self) -> None:
        connection = pika.BlockingConnection(pika.URLParameters(self._url))
        channel = connection.channel()
        channel.confirm_delivery()
        channel.basic_consume(DIRECT_REPLY_TO, self._on_reply, auto_ack=True)
        for number, value in enumerate(self.values):
            properties = pika.BasicProperties(correlation_id=str(number), reply_to=DIRECT_REPLY_TO, delivery_mode=2)
            channel.basic_publish(MODEL_EXCHANGE, self._model, body_of(value), properties, mandatory=True)
        self.sent.set()
        while not self._finish.is_set():
            connection.process_data_events(time_limit=0.02)
        channel.basic_qos(prefetch_count=1)  # answered after all replies that were on their way
        connection.process_data_events(time_limit=0)
        connection.close()

    def _on_reply(self, _channel: Any, _method: Any, properties: Any, body: bytes) -> None:
        status = (properties.headers or {}).get(STATUS_HEADER, "")
        self.replies[int(properties.correlation_id)].append(Reply(status, body))

    def finish(self) -> None:
        """Take what is still on its way, and leave."""
        self._finish.set()
        self.join(PATIENCE_S)
        assert not self.is_alive()


class Callers:
    """A pika producer, the Python client, and a gateway's requester that joins its requests to bundles."""

    def __init__(self, vhost: Any) -> None:
        self._vhost = vhost
        self._asking: list[asyncio.Task[None]] = []
        self.pika: list[PikaCaller] = []
        self.requester = Requester(
            vhost.options("test-gateway"), service="test", emit=ignore, rights=Rights("direct", "ml-gateway.test.")
        )
        self.client = Client(vhost.url, timeout_s=PATIENCE_S)

    async def __aenter__(self) -> Callers:
        await self.requester.start()
        await self.requester.up()
        await self.client.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._asking:
            task.cancel()
        for caller in self.pika:
            caller.finish()
        await self.client.__aexit__(None, None, None)
        await self.requester.stop()

    async def ask(self, model: str, values: Iterable[float], *, by_pika: Iterable[float] = ()) -> None:
        """Have requests under way: those of pika are in their queue on return."""
        caller = PikaCaller(self._vhost.url, model, [*by_pika, *values])
        caller.start()
        self.pika.append(caller)
        await asyncio.to_thread(caller.sent.wait, PATIENCE_S)
        for value in values:
            self._asking += [
                asyncio.create_task(self._as_client(model, value)),
                asyncio.create_task(self._as_gateway(model, value + 0.25)),
                asyncio.create_task(self._as_gateway(model, value + 0.5)),
            ]

    async def _as_client(self, model: str, value: float) -> None:
        outputs = await self.client.infer(model, {"x": [float(value)]})
        assert outputs["y"].tolist() == [value * 2]

    async def _as_gateway(self, model: str, value: float) -> None:
        request = Request(model, body_of(value), time.time() + PATIENCE_S, bundle_limit=4, idempotent=True)
        reply = msgspec.json.decode(await self.requester.ask(request))
        assert reply["outputs"][0]["data"] == [value * 2]

    async def answered(self, *, unless: Callable[[], bool] = lambda: False) -> None:
        """Wait until everybody has an answer; those of client and gateway are right."""
        end = time.monotonic() + PATIENCE_S
        while not unless() and not (all(task.done() for task in self._asking) and self._pika_has_all()):
            assert time.monotonic() < end, [task for task in self._asking if not task.done()]
            await asyncio.sleep(0.01)
        for task in self._asking:
            if task.done():
                task.result()

    def _pika_has_all(self) -> bool:
        return all(all(caller.replies) for caller in self.pika)

    def finish(self) -> dict[float, list[Reply]]:
        """Every reply that pika got, by the value that was asked."""
        for caller in self.pika:
            caller.finish()
        return {value: got for each in self.pika for value, got in zip(each.values, each.replies, strict=True)}


@pytest.fixture
def spawn_victim(settings_of: Callable[..., Settings], tmp_path: Path) -> Iterator[Callable[..., Awaitable[Any]]]:  # noqa: F811
    """A worker that is killed at a station, once it says that it is ready."""
    started: list[subprocess.Popen[bytes]] = []

    async def spawner(station: str, count: int, **environ: str) -> subprocess.Popen[bytes]:
        settings = settings_of()
        reading, writing = os.pipe()
        broker = settings.broker
        ours = {
            "MODELMQ_MODELS_DIR": settings.models_dir,
            "MODELMQ_STATE_DIR": settings.state_dir,
            "MODELMQ_BROKER_HOSTS": ",".join(broker.hosts),
            "MODELMQ_BROKER_VHOST": broker.vhost,
            "MODELMQ_BROKER_USERNAME": broker.username,
            "MODELMQ_BROKER_PASSWORD": broker.password,
            "MODELMQ_READY_FD": str(writing),
            "FAULT_STATION": station,
            "FAULT_COUNT": str(count),
            "FAULT_FILE": str(tmp_path / "entered"),
        }
        process = subprocess.Popen(  # noqa: ASYNC220 - it is waited for as a shell would
            [sys.executable, str(VICTIM)],
            env={**os.environ, **ours, **environ},
            pass_fds=(writing,),
            stderr=subprocess.DEVNULL,
        )
        started.append(process)
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            line = await asyncio.wait_for(asyncio.to_thread(pipe.readline), PATIENCE_S)
        assert line == b"ready\n"
        return process

    yield spawner
    for process in started:
        process.kill()
        process.wait(timeout=10)


@pytest.fixture
async def callers(vhost: Any) -> Callers:
    return Callers(vhost)
