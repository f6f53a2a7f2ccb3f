"""Workers that come, go, restart and disagree, as the gateway's callers see it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from modelmq.events import ModelSeen, RequestAnswered
from modelmq.topology_names import ModelRoute

from .conftest import SLOW, Broker, Running, Serve, body_of, until, values_of

pytestmark = pytest.mark.broker
Async = Callable[..., Awaitable[Any]]
Make = Callable[..., None]


async def test_a_model_without_any_worker_is_503_after_the_grace(
    make_model: Make, declare: Async, start_gateway: Async, broker: Broker
) -> None:
    make_model("double")
    await declare(broker)
    gateway: Running = await start_gateway(broker, worker_grace_s=1.5)
    for at_least_s in (1.2, 0.9):  # within the grace since the gateway's start; behind it, as long as a 404 may take
        began = time.monotonic()
        response = await gateway.infer("double", 1)
        assert (response.status_code, response.headers["retry-after"]) == (503, "1")
        assert "double" in response.json()["error"]
        assert at_least_s < time.monotonic() - began < 4


async def test_a_worker_that_comes_later_answers_what_waits(
    make_model: Make, declare: Async, spawn: Async, start_gateway: Async, broker: Broker
) -> None:
    make_model("double")
    await declare(broker)
    gateway: Running = await start_gateway(broker, worker_grace_s=30.0)
    waiting = asyncio.create_task(gateway.infer("double", 21))
    await until(lambda: gateway.gateway.in_flight > 0)
    await spawn("worker", broker)
    assert values_of(await waiting) == [42]
    await gateway.until_status("/v2/models/double/ready", 200)


async def test_a_gateway_that_starts_last_knows_the_models_at_once(
    make_model: Make,
    declare: Async,
    spawn: Async,
    start_gateway: Async,
    broker: Broker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_model("double")
    await declare(broker)
    await spawn("worker", broker)
    monkeypatch.setattr("modelmq.gateway.service.HELLO_INTERVAL_S", 3600.0)
    gateway: Running = await start_gateway(broker)
    await gateway.until(lambda: bool(gateway.of(ModelSeen)))
    assert (await gateway.http.get("/v2/models/double/ready")).status_code == 200
    assert values_of(await gateway.infer("double", 1)) == [2]


async def test_workers_that_disagree_close_the_model_until_one_leaves(
    make_model: Make, declare: Async, spawn: Async, start_gateway: Async, broker: Broker, tmp_path: Path
) -> None:
    make_model("scale")
    other = tmp_path / "other"
    make_model("scale", """
        class Model:
            inputs = {"x": ("FP32", [-1])}
            outputs = {"y": ("FP64", [-1])}
            def predict(self, batch):
                return {"y": batch["x"]}
    """, into=other)  # fmt: skip
    await declare(broker)
    await spawn("worker", broker)
    gateway: Running = await start_gateway(broker)
    await gateway.until_status("/v2/models/scale/ready", 200)
    wrong = await spawn("worker", broker, MODELMQ_MODELS_DIR=str(other))
    error = (await gateway.until_status("/v2/models/scale/ready", 503)).json()["error"]
    assert "disagree about model scale version 1: input x is FP" in error
    for word in ("FP64 [-1]", "FP32 [-1]", f"-{wrong.process.pid}-"):
        assert word in error
    refused = await gateway.infer("scale", 1)
    assert (refused.status_code, refused.json()["error"]) == (503, error)
    wrong.terminate()
    await gateway.until_status("/v2/models/scale/ready", 200)
    assert values_of(await gateway.infer("scale", 1)) == [2]


@pytest.mark.both_reply_modes
async def test_a_model_whose_workers_are_gone_is_told_so_and_comes_back(
    make_model: Make, serving: Serve, spawn: Async, broker: Broker
) -> None:
    make_model("double")
    gateway, worker = await serving(worker_grace_s=4.0)
    worker.process.kill()
    assert "any more" in (await gateway.until_status("/v2/models/double/ready", 503)).json()["error"]
    assert (await gateway.http.get("/v2/models/double")).status_code == 200
    response = await gateway.infer("double", 1)
    assert response.status_code == 503
    asked = gateway.asked
    assert (await gateway.infer("double", 1)).status_code == 503
    assert gateway.asked == asked
    await spawn("worker", broker)
    await gateway.until_status("/v2/models/double/ready", 200)
    assert values_of(await gateway.infer("double", 1)) == [2]
    assert [event.state for event in gateway.of(ModelSeen) if event.state in ("ready", "gone")][:3] == [
        "ready",
        "gone",
        "ready",
    ]


@pytest.mark.both_reply_modes
async def test_a_single_worker_is_restarted_under_load_and_no_request_fails(
    make_model: Make, serving: Serve, spawn: Async, broker: Broker
) -> None:
    make_model("double")
    gateway, worker = await serving()
    stop = asyncio.Event()
    statuses: list[int] = []

    async def load() -> None:
        while not stop.is_set():
            statuses.append((await gateway.infer("double", 1)).status_code)
            await asyncio.sleep(0.005)

    clients = [asyncio.create_task(load()) for _ in range(8)]
    for end in (worker.terminate, None):
        await gateway.until(lambda: len(gateway.of(RequestAnswered)) > 50)
        if end is None:
            worker.process.kill()
        else:
            end()
        await worker.ended()
        answered = len(statuses)
        worker = await spawn("worker", broker)
        await gateway.until(lambda answered=answered: len(statuses) > answered + 50)  # type: ignore[misc]
    stop.set()
    await asyncio.gather(*clients)
    assert set(statuses) == {200}


async def test_a_request_in_the_model_outlives_the_drain_of_its_worker(
    make_model: Make, serving: Serve, tmp_path: Path, wait_for_file: Any
) -> None:
    """A draining worker still answers, so its model is not given up, however short the grace."""
    make_model("slow", SLOW)
    gateway, worker = await serving(worker_grace_s=2.5)
    asked = asyncio.create_task(gateway.infer("slow", 100))
    await wait_for_file(tmp_path / "entered")
    worker.terminate()
    await gateway.until(lambda: any(event.state == "draining" for event in gateway.of(ModelSeen)))
    began = time.monotonic()
    reports_s = 4.0
    while time.monotonic() - began < reports_s:  # longer than the grace: only time can show that it is not used
        assert not asked.done()
        await asyncio.sleep(0.1)
    (tmp_path / "open").touch()
    assert values_of(await asked) == [200]


async def test_a_queue_without_worker_and_without_grace_does_not_hide_other_models(
    make_model: Make, declare: Async, spawn: Async, start_gateway: Async, broker: Broker
) -> None:
    make_model("double")
    await declare(broker, ModelRoute("orphan"))
    await spawn("worker", broker)
    gateway: Running = await start_gateway(broker, worker_grace_s=0.5)
    await gateway.until_status("/v2/models/double/ready", 200)
    orphan = asyncio.create_task(gateway.http.post("/v2/models/orphan/infer", content=body_of(1)))
    for value in range(20):
        assert values_of(await gateway.infer("double", value)) == [value * 2]
    assert (await orphan).status_code == 503
