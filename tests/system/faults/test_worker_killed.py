"""A worker is killed at each station of a request's way: every request is answered by somebody, and nobody pays."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from .conftest import VICTIM, Callers, Reply
from .worker_with_fault import STATIONS

pytestmark = pytest.mark.broker

Make = Callable[..., None]
Async = Callable[..., Awaitable[Any]]

POISON = 13.0
FIRST = 100.0
MODEL = """
    import os, time
    from pathlib import Path

    class Model:
        inputs = {"x": ("FP64", [-1])}
        outputs = {"y": ("FP64", [-1])}
        def predict(self, batch):
            x = batch["x"]
            with open("FOLDER/runs", "a") as runs:
                runs.write("".join(f"{value}\\n" for value in x.tolist()))
            if (x == 100).any():
                Path("FOLDER/entered").touch()
                while not Path("FOLDER/open").exists():
                    time.sleep(0.002)
            if (x == 13).any():
                os._exit(9)
            return {"y": x * 2}
"""
LATER = 17.0
NOT_YET = """
    from pathlib import Path
    from modelmq import Retry

    class Model:
        inputs = {"x": ("FP64", [-1])}
        outputs = {"y": ("FP64", [-1])}
        def predict(self, batch):
            x, put_off = batch["x"], Path("FOLDER/put-off")
            if (x == 17).any() and not put_off.exists():
                if len(x) == 1:
                    put_off.touch()
                raise Retry(0.1, "not yet")
            return {"y": x * 2}
"""
SMALL = "max_batch_size = 4\n"
HELD = 2 * 4
"""Messages that a worker of such a model holds at most."""


@pytest.mark.parametrize("station", STATIONS)
async def test_killed_at(  # noqa: PLR0917
    station: str, make_model: Make, declare: Async, spawn_victim: Async, start_worker: Async, asker: Any,
    callers: Callers, tmp_path: Path,
) -> None:  # fmt: skip
    make_model("m", MODEL.replace("FOLDER", str(tmp_path)), toml=SMALL)
    await declare()
    if station != "in the child":
        (tmp_path / "open").touch()
    deadly = station == "dead copy confirmed"
    victim = await spawn_victim(station, 1 if deadly else 2, MODELMQ_WORKER_MAX_ATTEMPTS="2")
    assert (await asker.ask("m", 1)).values == [2]
    children = psutil.Process(victim.pid).children(recursive=True)
    async with callers:
        await callers.ask("m", range(200, 208), by_pika=[FIRST, *([POISON] if deadly else [])])
        assert await asyncio.to_thread(victim.wait, 60) == -signal.SIGKILL
        (tmp_path / "open").touch()
        survivor = await start_worker(max_attempts=2)
        await callers.answered()
        await survivor.stop()
        replies = callers.finish()
    again = _check(replies)
    runs = Counter(map(float, (tmp_path / "runs").read_text().split()))
    if station == "reply written":  # which the contract tells plain AMQP callers to expect
        assert 0 < len(again) <= HELD
        assert all(runs[value] >= 2 for value in again)
    else:
        assert not again
    if station == "ack written":
        assert runs[FIRST] == 1
    letters = await asker.messages("ml-dead-letter.m")
    headers = [each.properties.headers for each in letters]
    assert [each["attempts"] for each in headers] == [2, 2] * deadly  # its copy is stored before its message is acked
    assert {each.properties.correlation_id for each in letters} <= {"1"}
    assert await asker.messages("ml-model.m.interactive") == []
    _, alive = psutil.wait_procs(children, timeout=10)
    assert alive == []


@pytest.mark.both_brokers
async def test_killed_between_the_copy_that_waits_and_the_ack(
    make_model: Make, ladder: Async, spawn_victim: Async, start_worker: Async, asker: Any, callers: Callers,
    tmp_path: Path,
) -> None:  # fmt: skip
    make_model("m", NOT_YET.replace("FOLDER", str(tmp_path)), toml=SMALL)
    await ladder()
    victim = await spawn_victim("copy for later confirmed", 1)
    async with callers:
        await callers.ask("m", range(200, 208), by_pika=[LATER])
        assert await asyncio.to_thread(victim.wait, 60) == -signal.SIGKILL
        survivor = await start_worker()
        await callers.answered()
        # The message itself, and its copy when its time has come.
        while len(callers.pika[0].replies[0]) < 2:  # noqa: ASYNC110 - another thread's
            await asyncio.sleep(0.01)
        await survivor.stop()
        again = _check(callers.finish())
    assert LATER in again
    for queue in ("ml-model.m.interactive", "ml-dead-letter.m", "ml-unrouted", "ml-retry.250", "ml-retry.375"):
        assert await asker.messages(queue) == [], queue


def _check(replies: dict[float, list[Reply]]) -> set[float]:
    """Each is answered, and rightly; who was answered twice, with the same."""
    for value, got in replies.items():
        if value == POISON:
            assert {each.status for each in got} == {"dead"}
        else:
            assert [each.values for each in got] == [[value * 2]] * len(got), value
        assert len(set(got)) == 1
    return {value for value, got in replies.items() if len(got) > 1}


@pytest.mark.both_brokers
async def test_killed_again_and_again_at_random(
    make_model: Make, declare: Async, spawn_victim: Async, start_worker: Async, asker: Any, callers: Callers,
    tmp_path: Path,
) -> None:  # fmt: skip
    seed = int(os.environ.get("FAULT_SEED") or random.SystemRandom().randrange(2**32))
    print(f"seed {seed}")  # noqa: T201 - shown when it fails
    chance = random.Random(seed)
    make_model("m", MODEL.replace("FOLDER", str(tmp_path)), toml=SMALL)
    await declare()
    (tmp_path / "open").touch()
    (tmp_path / "entered").touch()
    numbers = iter(range(200, 10_000, 8))
    async with callers:
        for _ in range(4):
            station, count = chance.choice([each for each in STATIONS if "dead" not in each]), chance.randint(1, 6)
            print(f"{station}, time {count}")  # noqa: T201
            victim = await spawn_victim(station, count, MODELMQ_WORKER_MAX_ATTEMPTS="2")
            while victim.poll() is None:
                first = next(numbers)
                deadly = [POISON] if chance.random() < 0.2 else []
                await callers.ask("m", range(first, first + 4), by_pika=deadly)
                if chance.random() < 0.5:
                    await callers.answered(unless=lambda poll=victim.poll: poll() is not None)
            assert victim.returncode == -signal.SIGKILL
        survivor = await start_worker(max_attempts=2)
        await callers.answered()
        await survivor.stop()
        _check(callers.finish())
    bodies = {each.body for each in await asker.messages("ml-dead-letter.m")}
    assert len(bodies) <= 1
    assert all(b"13" in body for body in bodies)
    assert await asker.messages("ml-model.m.interactive") == []


def test_a_station_that_is_no_more_is_an_error() -> None:
    code = "; ".join([
        "import sys", "sys.path.insert(0, sys.argv[1])", "import worker_with_fault",
        "del worker_with_fault.LaneChannel._on_delivery", "worker_with_fault.main()",
    ])  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", code, str(VICTIM.parent)],
        env={"FAULT_STATION": "delivered", "PATH": ""}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "AttributeError" in done.stderr
