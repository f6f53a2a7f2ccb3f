"""The gateway as its own process: its log, its end, its memory, and a broker that goes away."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from modelmq.amqp import ConnectionOptions, Credentials, Endpoint
from modelmq.broker.node import NodeSpec, start

from .conftest import SLOW, Broker, Child, body_of, broker_at, until, until_status, values_of

pytestmark = pytest.mark.broker
Async = Callable[..., Awaitable[Any]]
Make = Callable[..., None]


def url_of(gateway: Child) -> str:
    (address,) = (line["address"] for line in gateway.lines() if line["event"] == "ServiceStarted")
    return str(address)


def client(gateway: Child) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=url_of(gateway), timeout=30, trust_env=False)


@pytest.mark.both_reply_modes
async def test_a_drain_under_load_fails_no_request(
    make_model: Make, declare: Async, spawn: Async, broker: Broker, tmp_path: Path, wait_for_file: Any
) -> None:
    """Kept-alive clients are told to close behind an answer, and only then is nobody there any more."""
    make_model("slow", SLOW)
    await declare(broker)
    await spawn("worker", broker)
    gateway = await spawn("gateway", broker)
    statuses: list[int] = []
    ended: list[str] = []
    under_way = asyncio.Event()
    async with client(gateway) as one:
        await until_status(one, "/v2/models/slow/ready", 200)

        async def load() -> None:
            async with client(gateway) as http:
                while True:
                    try:
                        response = await http.post("/v2/models/slow/infer", content=body_of(1))
                    except httpx.ConnectError:
                        ended.append("nobody listens any more")
                        return
                    statuses.append(response.status_code)
                    if len(statuses) > 100:
                        under_way.set()

        clients = [asyncio.create_task(load()) for _ in range(8)]
        await under_way.wait()
        gateway.terminate()
        await asyncio.gather(*clients)
    assert await gateway.ended() == 0
    assert set(statuses) == {200}
    assert len(ended) == 8


async def test_an_open_request_is_finished_before_the_end(
    make_model: Make, declare: Async, spawn: Async, broker: Broker, tmp_path: Path, wait_for_file: Any
) -> None:
    make_model("slow", SLOW)
    await declare(broker)
    await spawn("worker", broker)
    gateway = await spawn("gateway", broker)
    async with client(gateway) as http:
        await until_status(http, "/v2/models/slow/ready", 200)
        asked = asyncio.create_task(http.post("/v2/models/slow/infer", content=body_of(100)))
        await wait_for_file(tmp_path / "entered")
        gateway.terminate()
        await until(lambda: any(line["event"] == "ServiceStopping" for line in gateway.lines()))
        (tmp_path / "open").touch()
        assert values_of(await asked) == [200]
    assert await gateway.ended() == 0


async def test_what_is_open_at_the_end_of_the_drain_is_answered_503(
    make_model: Make, declare: Async, spawn: Async, broker: Broker
) -> None:
    make_model("double")
    await declare(broker)
    gateway = await spawn("gateway", broker, MODELMQ_GATEWAY_DRAIN_S="0.2", MODELMQ_GATEWAY_WORKER_GRACE_S="60")
    async with client(gateway) as http:
        asked = asyncio.create_task(http.post("/v2/models/double/infer", content=body_of(1)))
        async with asyncio.timeout(30):
            while b"modelmq_requests_in_flight 1.0" not in (await http.get("/metrics")).content:
                pass
        gateway.terminate()
        response = await asked
    assert (response.status_code, response.headers["connection"]) == (503, "close")
    assert await gateway.ended() == 0


async def test_pages_and_log(make_model: Make, declare: Async, spawn: Async, broker: Broker) -> None:
    make_model("double")
    await declare(broker)
    await spawn("worker", broker)
    gateway = await spawn("gateway", broker, MODELMQ_LOG_LEVEL="debug")
    async with client(gateway) as http:
        await until_status(http, "/v2/models/double/ready", 200)
        await http.post("/v2/models/double/infer", content=body_of(1), headers={"x-request-id": "r-1"})
        assert (await http.get("/health/ready")).json()["ready"] is True
        assert (await http.head("/health/live")).status_code == 200
        assert (await http.post("/health/live")).status_code == 405
        metrics = (await http.get("/metrics")).text
    assert 'modelmq_requests_total{code="ok",model="double",version=""} 1.0' in metrics
    assert 'modelmq_model_ready{model="double",version="1"} 1.0' in metrics
    assert "modelmq_service_accepting 1.0" in metrics
    (answered,) = (line for line in gateway.lines() if line["event"] == "RequestAnswered")
    assert (answered["request_id"], answered["model"], answered["code"]) == ("r-1", "double", "ok")


async def test_it_stays_small(make_model: Make, declare: Async, spawn: Async, broker: Broker) -> None:
    make_model("double")
    await declare(broker)
    await spawn("worker", broker)
    gateway = await spawn("gateway", broker)
    async with client(gateway) as http:
        await until_status(http, "/v2/models/double/ready", 200)
        for _ in range(20):
            answers = [http.post("/v2/models/double/infer", content=body_of(*range(30))) for _ in range(50)]
            assert {each.status_code for each in await asyncio.gather(*answers)} == {200}
    process = psutil.Process(gateway.process.pid)
    assert process.memory_full_info().pss < 80_000_000
    mapped = {Path(region.path).name for region in process.memory_maps()}
    assert not [name for name in mapped if "onnxruntime" in name or "sklearn" in name]


async def test_settings_that_cannot_be_end_it_with_one_sentence(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "modelmq.gateway"),
        env={**os.environ, "MODELMQ_GATEWAY_PORT": "high"},
        stderr=subprocess.PIPE,
    )
    _, errors = await process.communicate()
    assert process.returncode == 2
    assert errors.count(b"\n") == 1
    assert b"gateway.port" in errors


async def test_a_taken_port_ends_it_with_one_sentence(spawn: Async, broker: Broker, declare: Async) -> None:
    await declare(broker)
    gateway = await spawn("gateway", broker)
    port = url_of(gateway).rpartition(":")[2]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "modelmq.gateway"),
        env={**os.environ, "MODELMQ_GATEWAY_PORT": port, "MODELMQ_BROKER_PASSWORD": "x"},
        stderr=subprocess.PIPE,
    )
    _, errors = await process.communicate()
    assert process.returncode == 2
    assert f"gateway.port: 127.0.0.1:{port} cannot be listened on".encode() in errors
    assert b"Traceback" not in errors


@pytest.fixture
def own_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Broker, NodeSpec, list[Any]]]:
    """A node that the test may stop and start again."""
    spec = NodeSpec(directory=tmp_path_factory.mktemp("own-node"))
    running = [start(spec)]
    node = running[0]
    options = ConnectionOptions(
        endpoints=(Endpoint("127.0.0.1", node.amqp_port),),
        credentials=lambda: Credentials(node.admin_username, node.admin_password),
    )
    try:
        yield broker_at(options, "/"), spec, running
    finally:
        with contextlib.suppress(Exception):
            running[0].stop()


@pytest.mark.both_reply_modes
async def test_a_broker_that_stops_is_503_and_its_return_needs_no_restart(
    own_node: tuple[Broker, NodeSpec, list[Any]],
    make_model: Make,
    declare: Async,
    spawn: Async,
    tmp_path: Path,
    wait_for_file: Any,
) -> None:
    """What it had confirmed is answered when it is back."""
    broker, spec, running = own_node
    make_model("double")
    make_model("slow", SLOW)
    await declare(broker)
    await spawn("worker", broker)
    gateway = await spawn("gateway", broker)
    async with client(gateway) as http:
        await until_status(http, "/v2/models/double/ready", 200)
        await until_status(http, "/v2/models/slow/ready", 200)
        accepted = asyncio.create_task(http.post("/v2/models/slow/infer", content=body_of(100), timeout=60))
        await wait_for_file(tmp_path / "entered")
        await asyncio.to_thread(running[0].stop)
        response = await http.post("/v2/models/double/infer", content=body_of(1))
        assert (response.status_code, response.headers["retry-after"]) == (503, "1")
        assert (await http.get("/v2/health/ready")).status_code == 503
        assert (await http.get("/v2/health/live")).status_code == 200
        running[0] = await asyncio.to_thread(start, spec)
        await until_status(http, "/v2/health/ready", 200)
        assert values_of(await http.post("/v2/models/double/infer", content=body_of(1))) == [2]
        (tmp_path / "open").touch()
        assert values_of(await accepted) == [200]
        await until_status(http, "/v2/models/double/ready", 200)
