"""A model that crashes again and again is unready, at once and by itself; its worker and its neighbours are not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from modelmq.events import ModelProcessEnded, ModelSeen
from modelmq.settings import Settings, WorkerSettings
from modelmq.worker import restarts
from tests.system.worker.conftest import Running as RunningWorker

from .conftest import Broker, Running, values_of

pytestmark = pytest.mark.broker
Make = Callable[..., None]
ServeHere = Callable[..., Awaitable[tuple[Running, RunningWorker]]]

CRASHES = """
    import os
    from pathlib import Path

    class Model:
        inputs = {"x": ("FP64", [-1])}
        outputs = {"y": ("FP64", [-1])}
        def predict(self, batch):
            if Path("FOLDER/broken").exists():
                os._exit(5)
            return {"y": batch["x"] * 2}
"""


@pytest.fixture
async def serving_here(declare: Any, start_gateway: Any, broker: Broker, models_dir: Path) -> AsyncIterator[ServeHere]:
    """As `serving`, but with the worker in this process, where tests see its events; the settings are the worker's."""
    started: list[RunningWorker] = []

    async def serve(**worker: Any) -> tuple[Running, RunningWorker]:
        await declare(broker)
        own = WorkerSettings(**worker)
        started.append(RunningWorker(Settings(models_dir=str(models_dir), broker=broker.settings, worker=own)))
        gateway: Running = await start_gateway(broker, worker_grace_s=60.0)
        await gateway.until_served(models_dir)
        return gateway, started[-1]

    yield serve
    for each in started:
        await each.stop()


async def test_a_crash_loop_is_refused_at_once_and_served_again_when_it_ends(
    make_model: Make, serving_here: ServeHere, tmp_path: Path
) -> None:
    make_model("fragile", CRASHES)
    make_model("double")
    gateway, worker = await serving_here()
    assert values_of(await gateway.infer("fragile", 1)) == [2]

    (tmp_path / "broken").touch()
    held = asyncio.create_task(gateway.infer("fragile", 3))
    await gateway.until(lambda: ("fragile", "failed") in {(each.model, each.state) for each in gateway.of(ModelSeen)})
    asked = gateway.asked
    refused = await gateway.infer("fragile", 2)
    assert gateway.asked == asked
    assert refused.status_code == 503
    assert int(refused.headers["retry-after"]) >= 1
    assert "its process exited with status 5 while loading" in refused.json()["error"]
    unready = await gateway.http.get("/v2/models/fragile/ready")
    assert (unready.status_code, "retry-after" in unready.headers) == (503, True)
    assert values_of(await gateway.infer("double", 4)) == [8]
    assert worker.worker.status() == (True, "fragile failed")

    (tmp_path / "broken").unlink()
    assert values_of(await held) == [6]
    await gateway.until_status("/v2/models/fragile/ready", 200)
    assert values_of(await gateway.infer("fragile", 5)) == [10]


HANGS = CRASHES.replace("os._exit(5)", "__import__('time').sleep(batch['x'][0] * 3600)")


async def test_a_model_that_hangs_with_every_request_is_restarted_no_more_often_than_its_budget_allows(
    make_model: Make, serving_here: ServeHere, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restarts, "RETRY_DELAYS_S", (3.0, 60.0))
    make_model("fragile", HANGS, toml="max_batch_size = 1\nmax_run_s = 0.3")
    gateway, worker = await serving_here(max_attempts=1)

    (tmp_path / "broken").touch()
    for _ in range(3):
        dead = await gateway.infer("fragile", 1)
        assert (dead.status_code, "ran longer than max_run_s" in dead.json()["error"]) == (500, True)
    await gateway.until(lambda: ("fragile", "failed") in {(each.model, each.state) for each in gateway.of(ModelSeen)})
    refused = await gateway.infer("fragile", 2)
    assert (refused.status_code, "again and again" in refused.json()["error"]) == (503, True)
    assert len(worker.of(ModelProcessEnded)) == 3

    (tmp_path / "broken").unlink()
    await gateway.until_status("/v2/models/fragile/ready", 200)
    assert values_of(await gateway.infer("fragile", 5)) == [10]
