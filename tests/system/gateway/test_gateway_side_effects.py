"""What becomes of a request that is under way when the gateway loses its connection to RabbitMQ."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from modelmq.events import BrokerConnected

from .conftest import Running, Serve, values_of

pytestmark = pytest.mark.broker
Async = Callable[..., Awaitable[Any]]
Make = Callable[..., None]

PAYING = """
    import time
    from pathlib import Path

    class Model:
        inputs = {"x": ("FP64", [-1])}
        outputs = {"y": ("FP64", [-1])}
        def predict(self, batch):
            for value in batch["x"]:
                with open("FOLDER/paid", "a") as paid:
                    print(int(value), file=paid)
            if 100 in batch["x"]:
                Path("FOLDER/entered").touch()
                while not Path("FOLDER/open").exists():
                    time.sleep(0.005)
            return {"y": batch["x"] * 2}
"""


@pytest.fixture
def asked(make_model: Make, serving: Serve, tmp_path: Path, wait_for_file: Any) -> Async:
    """A request for 100 that stands in the model when the connection ends: the gateway, and its answer to come."""

    async def ask(toml: str) -> tuple[Running, asyncio.Task[Any]]:
        make_model("pays", PAYING, toml=toml)
        gateway, _ = await serving(confirm_timeout_s=10.0)
        answer = asyncio.create_task(gateway.infer("pays", 100))
        await wait_for_file(tmp_path / "entered")
        gateway.break_off()
        await gateway.until(lambda: len(gateway.of(BrokerConnected)) == 2)
        return gateway, answer

    return ask


@pytest.mark.both_reply_modes
async def test_a_model_with_side_effects_is_never_asked_twice(asked: Async, tmp_path: Path) -> None:
    gateway, answer = await asked("idempotent = false\n")
    response = await answer  # the model still stands
    assert (response.status_code, response.headers["retry-after"]) == (503, "1")
    assert "connection" in response.json()["error"]
    (tmp_path / "open").touch()
    assert values_of(await gateway.infer("pays", 7)) == [14]
    assert (tmp_path / "paid").read_text().split()[-2:] == ["100", "7"]
    assert (tmp_path / "paid").read_text().split().count("100") == 1


@pytest.mark.both_reply_modes
async def test_any_other_is_asked_again_and_answers(asked: Async, tmp_path: Path) -> None:
    _, answer = await asked("")
    assert not answer.done()
    (tmp_path / "open").touch()
    assert values_of(await answer) == [200]


async def test_a_model_says_how_long_its_callers_wait(make_model: Make, serving: Serve, tmp_path: Path) -> None:
    make_model("pays", PAYING, toml="timeout_s = 0.3\n")
    gateway, _ = await serving()
    began = time.monotonic()
    assert (await gateway.infer("pays", 100)).status_code == 504
    assert 0.3 <= time.monotonic() - began < 5
    (tmp_path / "open").touch()
    answer = await gateway.infer("pays", 1, headers={"inference-timeout-ms": "30000"})
    assert values_of(answer) == [2]
