"""A model's process dies in every way: what it held is answered, the culprit is found, its neighbours succeed."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from modelmq import bundles
from modelmq.bundles import BUNDLE, RequestPart
from modelmq.client.api import Client
from modelmq.errors import Expired
from modelmq.events import BatchFinished, ModelLoaded, ModelProcessEnded
from modelmq.messages import JSON

from .conftest import body_of

pytestmark = pytest.mark.broker

Make = Callable[..., None]
Async = Callable[..., Awaitable[Any]]

MODEL = """
    import ctypes, os, signal, time
    from pathlib import Path
    import numpy as np

    class Model:
        inputs = {"x": ("FP64", [-1])}
        outputs = {"y": ("FP64", [-1])}
        def predict(self, batch):
            x = batch["x"]
            match float(x.min()):
                case -1: ctypes.string_at(0)
                case -2: time.sleep(3600)
                case -3: os.kill(os.getpid(), signal.SIGKILL)  # as the kernel does when memory runs out
                case -4: os.abort()  # as libraries do when they get none
                case -5: os._exit(0)
                case -6: np.ones(10**9)
                case -7: raise ValueError("no such thing")
            if (x == 50).any():
                np.ones(len(x) * 10**7)  # 80 MB for each row
            if (x == 100).any():
                Path("FOLDER/entered").touch()
                while not Path("FOLDER/open").exists():
                    time.sleep(0.002)
            return {"y": x * 2}
"""
LIMITS = f"max_run_s = 0.7\nmax_memory_bytes = {256 * 1024**2}\n"
DEADLY = {
    -1: "was ended by SIGSEGV",
    -2: "ran longer than max_run_s = 0.7 and was ended",
    -3: "was ended by SIGKILL",
    -4: "was ended by SIGABRT",
    -5: "exited with status 0",
}
RAISED = {-6: "max_memory_bytes = 268435456", -7: "ValueError: no such thing"}


class Held:
    """The model computes for one request until told, while more come and become one batch."""

    def __init__(self, folder: Path, asker: Any, wait_for_file: Any, request_body: Any) -> None:
        self._folder = folder
        self._asker = asker
        self._wait_for_file = wait_for_file
        self.body = request_body

    async def begin(self) -> str:
        for name in ("entered", "open"):
            (self._folder / name).unlink(missing_ok=True)
        blocker: str = await self._asker.send("m", self.body(100))
        await self._wait_for_file(self._folder / "entered")
        return blocker

    def end(self) -> None:
        (self._folder / "open").touch()


@pytest.fixture
def held(tmp_path: Path, asker: Any, wait_for_file: Any) -> Held:
    return Held(tmp_path, asker, wait_for_file, body_of)


async def ask_in_a_bundle(asker: Any, values: list[float], body: Any) -> dict[float, tuple[str, dict[str, Any]]]:
    """As gateways do it: one message, whose replies come in one or more. Of each value, status and body."""
    far_ms = 2**45
    parts = [RequestPart(f"part {value}", far_ms, f"part {value}", JSON, None, body(value)) for value in values]
    asker.replies.pop("", None)
    await asker.send("m", bundles.encode(parts), content_type=BUNDLE)

    def found() -> dict[float, tuple[str, dict[str, Any]]]:
        joined = [part for each in asker.replies.get("", []) for part in bundles.decode_replies(each.body)]
        answers = {part.correlation_id: (part.status, part.body) for part in joined}
        for value in values:
            for each in asker.replies.get(f"part {value}", []):
                answers[f"part {value}"] = ((each.properties.headers or {}).get("status", ""), each.body)
        return {v: (answers[f"part {v}"][0], msgspec.json.decode(answers[f"part {v}"][1])) for v in values
                if f"part {v}" in answers}  # fmt: skip

    await asker.until(lambda: len(found()) == len(values))
    return found()


@pytest.mark.both_brokers
async def test_poison_of_every_kind_is_found_among_others_and_kept(
    make_model: Make, declare: Async, start_worker: Async, asker: Any, held: Held, tmp_path: Path
) -> None:
    make_model("m", MODEL.replace("FOLDER", str(tmp_path)), toml=LIMITS)
    await declare()
    running = await start_worker(max_attempts=2)
    for number, (poison, words) in enumerate((DEADLY | RAISED).items()):
        values = [number * 10 + 1, poison, number * 10 + 2]
        blocker = await held.begin()
        names = [await asker.send("m", held.body(value)) for value in values]
        held.end()
        assert (await asker.answer(blocker)).values == [200]
        for value, name in zip(values, names, strict=True):
            answer = await asker.answer(name)
            if value == poison:
                assert answer.status == ("dead" if poison in DEADLY else "failed")
                assert words in answer.body["error"]
            else:
                assert answer.values == [value * 2]
    await running.stop()
    letters = await asker.messages("ml-dead-letter.m")
    assert [each.body for each in letters] == [held.body(value) for value in DEADLY]
    for letter, words in zip(letters, DEADLY.values(), strict=True):
        headers = letter.properties.headers
        assert (headers["reason"], headers["attempts"]) == ("model_process_died", 2)
        assert f"The process of model m {words} each of the 2 times" in headers["error"]
    assert await asker.messages("ml-model.m.interactive") == []


async def test_poison_in_a_bundle_is_dead_alone(
    make_model: Make, declare: Async, start_worker: Async, asker: Any, held: Held, tmp_path: Path
) -> None:
    make_model("m", MODEL.replace("FOLDER", str(tmp_path)), toml=LIMITS)
    await declare()
    running = await start_worker(max_attempts=2)
    values = [1.0, -3.0, 2.0, -7.0, 3.0]
    answers = await ask_in_a_bundle(asker, values, held.body)
    assert {value: status for value, (status, _) in answers.items()} == {1: "", -3: "dead", 2: "", -7: "failed", 3: ""}
    assert all(answers[value][1]["outputs"][0]["data"] == [value * 2] for value in (1, 2, 3))
    await running.stop()
    (letter,) = await asker.messages("ml-dead-letter.m")
    assert (letter.body, letter.properties.content_type) == (held.body(-3.0), JSON)
    assert letter.properties.headers["attempts"] == 2
    assert await asker.messages("ml-model.m.interactive") == []


async def test_a_batch_with_too_little_memory_is_run_in_parts(
    make_model: Make, declare: Async, start_worker: Async, asker: Any, held: Held, tmp_path: Path
) -> None:
    make_model("m", MODEL.replace("FOLDER", str(tmp_path)), toml=f"max_memory_bytes = {256 * 1024**2}\n")
    await declare()
    running = await start_worker()
    await held.begin()
    names = [await asker.send("m", held.body(50)) for _ in range(8)]
    lane = running.worker.queues[0]._lanes["interactive"]
    async with asyncio.timeout(30):
        while lane.requests < 9:  # noqa: ASYNC110 - nobody is told
            await asyncio.sleep(0.005)
    held.end()
    for name in names:
        assert (await asker.answer(name)).values == [100]
    await running.until(lambda: len(running.of(BatchFinished)) == 2)
    assert running.of(BatchFinished)[-1].runs > 1
    assert running.of(ModelProcessEnded) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
async def test_a_process_ended_from_outside_costs_nobody_the_answer(
    make_model: Make, declare: Async, start_worker: Async, asker: Any, held: Held, tmp_path: Path, number: int
) -> None:
    """Stopped it is as good as hung."""
    make_model("m", MODEL.replace("FOLDER", str(tmp_path)), toml="max_run_s = 1.5")
    await declare()
    running = await start_worker()
    names = {100: await held.begin()}
    names |= {value: await asker.send("m", held.body(value)) for value in range(1, 9)}
    pid = running.worker.queues[0].versions["1"].pid
    os.kill(pid, number)
    held.end()
    for value, name in names.items():
        assert (await asker.answer(name)).values == [value * 2]
    (ended,) = running.of(ModelProcessEnded)
    assert ended.requests_held == 1
    assert not psutil.pid_exists(pid)
    await running.stop()
    assert await asker.messages("ml-dead-letter.m") == []
    assert await asker.messages("ml-model.m.interactive") == []


async def test_a_thousand_callers_in_a_hurry_restart_nothing(
    make_model: Make, declare: Async, start_worker: Async, asker: Any, vhost: Any, held: Held, tmp_path: Path
) -> None:
    make_model("m", MODEL.replace("FOLDER", str(tmp_path)), toml="max_run_s = 1.5")
    await declare()
    running = await start_worker()
    version = running.worker.queues[0].versions["1"]
    pid = version.pid
    async with Client(vhost.url) as client:
        results = [
            result
            for _ in range(10)
            for result in await asyncio.gather(
                *(client.infer("m", {"x": [number]}, timeout_s=0.001) for number in range(100)), return_exceptions=True
            )
        ]
    assert {type(result) for result in results} <= {Expired, dict}
    assert Expired in {type(result) for result in results}
    assert (await asker.ask("m", 1)).values == [2]
    assert (version.pid, version.state) == (pid, "ready")
    assert len(running.of(ModelLoaded)) == 1
    assert running.of(ModelProcessEnded) == []
    await running.stop()
    assert await asker.messages("ml-model.m.interactive") == []
