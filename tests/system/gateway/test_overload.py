"""More is asked than a model can do, as its callers see it: who would wait in vain is told at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from modelmq.events import RequestAnswered

from .conftest import Broker, Running, until

pytestmark = pytest.mark.broker
Async = Callable[..., Awaitable[Any]]
Make = Callable[..., None]

SLEEPER = """
    import time

    class Model:
        inputs = {"x": ("FP64", [-1])}
        outputs = {"y": ("FP64", [-1])}
        def predict(self, batch):
            time.sleep(0.1)
            return {"y": batch["x"] * 2}
"""
PER_S = 20.0
"""Batches of two."""
DEADLINE = {"Inference-Timeout-Ms": "1000"}


def predicted_s(gateway: Running) -> float:
    return gateway.gateway._backlogs.wait_s("slow", "interactive", time.monotonic())


@pytest.mark.both_brokers
async def test_who_would_wait_past_the_deadline_is_refused_at_once(
    make_model: Make, declare: Async, spawn: Async, start_gateway: Async, broker: Broker
) -> None:
    make_model("slow", SLEEPER, toml="max_batch_size = 2\n")
    await declare(broker)
    await spawn("worker", broker)
    gateway: Running = await start_gateway(broker)
    await gateway.until_status("/v2/models/slow/ready", 200)
    gateway.http._transport._pool._max_connections = 1000  # type: ignore[attr-defined]
    waiting = [asyncio.create_task(gateway.infer("slow", each)) for each in range(120)]
    await until(lambda: predicted_s(gateway) > 2)

    before = len(gateway.of(RequestAnswered))
    began = time.monotonic()
    refused = await gateway.infer("slow", 1, headers=DEADLINE)
    assert time.monotonic() - began < 0.5
    assert refused.status_code == 429, refused.text
    assert 1 <= int(refused.headers["retry-after"]) <= 6
    assert "Model slow would take about" in refused.json()["error"]
    assert [each.code for each in gateway.of(RequestAnswered)[before:]].count("overloaded") == 1

    patient = await gateway.infer("slow", 1, headers={"Inference-Timeout-Ms": "30000"})
    assert patient.status_code == 200
    assert [each.status_code for each in await asyncio.gather(*waiting)] == [200] * 120

    assert predicted_s(gateway) < 1
    assert (await gateway.infer("slow", 1, headers=DEADLINE)).status_code == 200
