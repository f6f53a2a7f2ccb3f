"""Callers that go away or run out of time, over HTTP: they hear at once, and nothing is computed for them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from modelmq.events import RequestAnswered

from .conftest import PATIENCE_S, Child, Running, Serve, body_of, until, values_of

pytestmark = pytest.mark.broker
Make = Callable[..., None]

GATED = """
    import time
    from pathlib import Path

    class Model:
        inputs = {"x": ("FP64", [-1])}
        outputs = {"y": ("FP64", [-1])}
        def predict(self, batch, cancelled):
            with open("FOLDER/computed", "a") as file:
                print(*map(int, batch["x"]), file=file)
            if batch["x"][0] >= 100:
                Path("FOLDER/entered").touch()
                while not Path("FOLDER/open").exists():
                    if batch["x"][0] == 200 and cancelled():
                        Path("FOLDER/stopped").touch()
                        raise RuntimeError("nobody waits")
                    time.sleep(0.005)
                Path("FOLDER/done").touch()
            return {"y": batch["x"] * 2}
"""


class Bench:
    """A gateway, a worker in its own process, and callers that can be cut off."""

    def __init__(self, gateway: Running, worker: Child, folder: Path) -> None:
        self.gateway = gateway
        self.worker = worker
        self.folder = folder
        self.writers: list[asyncio.StreamWriter] = []

    def ask(self, *values: float, **arguments: Any) -> asyncio.Task[httpx.Response]:
        return asyncio.create_task(self.gateway.infer("m", *values, **arguments))

    async def ask_and_wait(self, *values: float) -> asyncio.StreamWriter:
        """Ask over a socket of its own; it is under way when this returns."""
        held = self.gateway.gateway.in_flight
        _, writer = await asyncio.open_connection("127.0.0.1", self.gateway.gateway.port)
        self.writers.append(writer)
        body = body_of(*values)
        head = "POST /v2/models/m/infer HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        await until(lambda: self.gateway.gateway.in_flight == held + 1)
        return writer

    async def leave(self, writer: asyncio.StreamWriter) -> None:
        """Go away, and wait until the gateway has seen it, and so withdrawn the request."""
        held = self.gateway.gateway.in_flight
        writer.close()
        await until(lambda: self.gateway.gateway.in_flight == held - 1)

    async def worker_told(self, **counts: int) -> str:
        """The worker's metrics, once so many requests of these reasons were dropped."""
        started = next(line for line in self.worker.lines() if line["event"] == "ServiceStarted")
        async with asyncio.timeout(PATIENCE_S), httpx.AsyncClient(trust_env=False) as http:
            while True:
                text = (await http.get(f"{started['address']}/metrics")).text
                found = re.findall(r'modelmq_work_dropped_total\{model="m",reason="(\w+)",version="1"\} (\d+)', text)
                if {reason: int(count) for reason, count in found} == counts:
                    return text
                await asyncio.sleep(0.02)

    def computed(self) -> set[int]:
        return set(map(int, (self.folder / "computed").read_text().split())) - {0}

    def go_on(self) -> None:
        (self.folder / "open").touch()


@pytest.fixture
async def bench(make_model: Make, serving: Serve, tmp_path: Path) -> Any:
    made: list[Bench] = []

    async def make(toml: str) -> Bench:
        make_model("m", GATED, toml=toml)
        gateway, worker = await serving()
        assert values_of(await gateway.infer("m", 1)) == [2]  # from now on it is known what a request costs
        made.append(Bench(gateway, worker, tmp_path))
        return made[-1]

    yield make
    for each in made:
        for writer in each.writers:
            writer.close()


@pytest.mark.both_reply_modes
@pytest.mark.both_brokers
async def test_wherever_the_request_of_a_client_that_left_is_it_is_not_computed(bench: Any, wait_for_file: Any) -> None:
    """The first waits in the worker, the second and third with the broker."""
    at: Bench = await bench("max_batch_size = 1")
    blocker = at.ask(100)
    await wait_for_file(at.folder / "entered")
    held = await at.ask_and_wait(2)
    waiting = await at.ask_and_wait(3)
    stays = at.ask(4)
    await until(lambda: at.gateway.gateway.in_flight == 4)
    await at.leave(waiting)
    await at.leave(held)
    text = await at.worker_told(cancelled=2)
    (refused,) = [line for line in at.worker.lines() if line["event"] == "MessageRefused"]
    assert refused["code"] == "cancelled"  # it came in the place of the one that was held
    at.go_on()
    assert [values_of(await each) for each in (blocker, stays)] == [[200], [8]]
    assert at.computed() == {1, 100, 4}
    saved = re.search(r'modelmq_compute_saved_seconds_total\{model="m",reason="cancelled",version="1"\} (\S+)', text)
    assert saved is not None
    assert 0 < float(saved[1]) < PATIENCE_S
    codes = [event.code for event in at.gateway.of(RequestAnswered)]
    assert codes == ["ok", "cancelled", "cancelled", "ok", "ok"]


async def test_who_leaves_a_batch_takes_nobody_along(bench: Any, wait_for_file: Any) -> None:
    at: Bench = await bench("max_batch_size = 8")
    blocker = at.ask(100)
    await wait_for_file(at.folder / "entered")
    first = at.ask(2)
    await until(lambda: at.gateway.gateway.in_flight == 2)
    leaver = await at.ask_and_wait(3)
    last = at.ask(4)
    await until(lambda: at.gateway.gateway.in_flight == 4)
    await at.leave(leaver)
    await at.worker_told(cancelled=1)
    at.go_on()
    assert [values_of(await each) for each in (blocker, first, last)] == [[200], [4], [8]]
    assert at.computed() == {1, 100, 2, 4}


async def test_a_run_that_nobody_waits_for_is_broken_off(bench: Any, wait_for_file: Any) -> None:
    at: Bench = await bench("max_batch_size = 1")
    leaver = await at.ask_and_wait(200)
    await wait_for_file(at.folder / "entered")
    other = at.ask(2)
    await at.leave(leaver)
    assert values_of(await other) == [4]
    assert (at.folder / "stopped").exists()
    await at.worker_told(cancelled=1)


@pytest.mark.both_reply_modes
async def test_504_comes_when_the_deadline_has_passed_though_the_model_is_busy(bench: Any, wait_for_file: Any) -> None:
    at: Bench = await bench("max_batch_size = 1")
    running = at.ask(100, headers={"inference-timeout-ms": "200"})
    await wait_for_file(at.folder / "entered")
    waiting = asyncio.create_task(
        at.gateway.http.post("/v2/models/m/infer", content=body_of(2, parameters={"timeout": 100_000}))
    )
    behind = asyncio.create_task(
        at.gateway.http.post("/v2/models/m/infer", content=body_of(3, parameters={"timeout": 100_000}))
    )
    answers = [await each for each in (running, waiting, behind)]
    assert [answer.status_code for answer in answers] == [504, 504, 504]
    assert not (at.folder / "done").exists()  # the model has not even answered the first
    for answer in at.gateway.of(RequestAnswered)[1:]:
        assert answer.code == "expired"
        assert 0.1 <= answer.duration_s < 2
    last = at.ask(4)
    at.go_on()
    assert values_of(await last) == [8]
    assert at.computed() == {1, 100, 4}
