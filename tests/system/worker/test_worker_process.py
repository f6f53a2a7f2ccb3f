"""The worker as its own process, ended in the ways an operating system ends processes."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from modelmq.amqp import Delivery
from modelmq.broker.management import Management
from modelmq.settings import Settings

pytestmark = pytest.mark.broker

Make = Callable[..., None]
Declare = Callable[..., Awaitable[None]]
Spawn = Callable[..., Awaitable["subprocess.Popen[bytes]"]]

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


@pytest.fixture
def spawn(settings_of: Callable[..., Settings]) -> Iterator[Spawn]:
    """`python -m modelmq.worker`, once it says that it is ready."""
    started: list[subprocess.Popen[bytes]] = []

    async def spawner(**environ: str) -> subprocess.Popen[bytes]:
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
            "MODELMQ_TOPOLOGY_REPLY_MODE": settings.topology.reply_mode,
            "MODELMQ_READY_FD": str(writing),
        }
        process = subprocess.Popen(  # noqa: ASYNC220 - it is signalled and waited for as a shell would
            [sys.executable, "-m", "modelmq.worker"],
            env={**os.environ, **ours, **environ},
            pass_fds=(writing,),
            stderr=subprocess.DEVNULL,
        )
        started.append(process)
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            line = await asyncio.wait_for(asyncio.to_thread(pipe.readline), 60)
        assert line == b"ready\n"
        return process

    yield spawner
    for process in started:
        process.kill()
        process.wait(timeout=10)


async def test_of_one_slow_request_among_a_thousand_fast_ones_at_most_one_is_redelivered(  # noqa: PLR0917
    make_model: Make, declare: Declare, spawn: Spawn, asker: Any, tmp_path: Path, wait_for_file: Any,
    request_body: Any, vhost: Any,
) -> None:  # fmt: skip
    """Versions share the queue, so the slow one is held unacked on the very channel of the fast ones."""
    make_model("m", SLOW.replace("FOLDER", str(tmp_path)), version="1")
    make_model("m", version="2")
    await declare()
    worker = await spawn()
    slow = await asker.send("m.1", request_body(100))
    await wait_for_file(tmp_path / "entered")
    names = await asyncio.gather(*(asker.send("m.2", request_body(value)) for value in range(1000)))
    for value, name in enumerate(names):
        assert (await asker.answer(name)).values == [value * 2]
    await asyncio.to_thread(until_one_is_unacked, vhost, "ml-model.m.interactive")
    worker.send_signal(signal.SIGKILL)
    await asyncio.to_thread(worker.wait)
    left: list[Delivery] = await asker.messages("ml-model.m.interactive")
    assert [each.properties.correlation_id for each in left] == [slow]
    assert left[0].redelivered


async def test_no_process_is_left_and_sigterm_ends_in_peace(
    make_model: Make, declare: Declare, spawn: Spawn, asker: Any, request_body: Any
) -> None:
    make_model("double")
    await declare()
    worker = await spawn()
    children = psutil.Process(worker.pid).children()
    assert len(children) == 1
    assert (await asker.ask("double", 1)).values == [2]
    worker.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(worker.wait, 30) == 0
    _, alive = psutil.wait_procs(children, timeout=10)
    assert alive == []


@pytest.mark.both_brokers
async def test_sigterm_finishes_what_is_held_and_leaves_the_rest(
    make_model: Make, declare: Declare, spawn: Spawn, asker: Any, tmp_path: Path, wait_for_file: Any, request_body: Any
) -> None:
    make_model("m", SLOW.replace("FOLDER", str(tmp_path)), toml="max_batch_size = 2")
    await declare()
    worker = await spawn()
    await asker.hello()
    names = [await asker.send("m", request_body(100))]
    await wait_for_file(tmp_path / "entered")
    names += [await asker.send("m", request_body(value)) for value in range(9)]
    worker.send_signal(signal.SIGTERM)
    await asker.until(lambda: any(b'"draining"' in report.body for report in asker.replies.get("", [])))
    (tmp_path / "open").touch()
    assert await asyncio.to_thread(worker.wait, 30) == 0
    held = [(await asker.answer(name)).values for name in names[:4]]
    assert held == [[200], [0], [2], [4]]
    left: list[Delivery] = await asker.messages("ml-model.m.interactive")
    assert [(each.properties.correlation_id, each.redelivered) for each in left] == [
        (name, False) for name in names[4:]
    ]
    assert len([name for name in names if name in asker.replies]) == 4


async def test_no_process_is_left_after_a_kill(make_model: Make, declare: Declare, spawn: Spawn) -> None:
    make_model("double")
    await declare()
    worker = await spawn()
    children = psutil.Process(worker.pid).children()
    worker.kill()
    await asyncio.to_thread(worker.wait, 30)
    _, alive = psutil.wait_procs(children, timeout=10)
    assert alive == []


@pytest.mark.both_reply_modes
@pytest.mark.both_brokers
async def test_a_request_in_the_model_when_the_worker_is_killed_is_answered_by_the_next(
    make_model: Make, declare: Declare, spawn: Spawn, asker: Any, tmp_path: Path, wait_for_file: Any, request_body: Any
) -> None:
    make_model("m", SLOW.replace("FOLDER", str(tmp_path)))
    await declare()
    worker = await spawn()
    names = [await asker.send("m", request_body(value)) for value in (100, 1, 2)]
    await wait_for_file(tmp_path / "entered")
    worker.kill()
    (tmp_path / "open").touch()
    await spawn()
    for value, name in zip((100, 1, 2), names, strict=True):
        assert (await asker.answer(name)).values == [value * 2]


def test_the_worker_imports_no_framework() -> None:
    code = "import sys, modelmq.worker.__main__; print(*{name.partition('.')[0] for name in sys.modules})"
    imported = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout.split()
    assert "numpy" in imported
    heavy = {"onnxruntime", "sklearn", "skops", "scipy", "httpx", "starlette", "uvicorn", "typer", "rich"}
    assert not heavy & set(imported)


async def test_settings_that_cannot_be_end_it_with_one_sentence(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "modelmq.worker"),
        env={**os.environ, "MODELMQ_MODELS_DIR": str(tmp_path)},
        stderr=subprocess.PIPE,
    )
    _, errors = await process.communicate()
    assert process.returncode == 2
    assert b"has no model that a worker" in errors
    assert b"Traceback" not in errors


def until_one_is_unacked(vhost: Any, queue: str) -> None:
    """Acks have no answer, and RabbitMQ may hold some for a while before its queue hears of them."""
    node = vhost.node
    end = time.monotonic() + 30
    with Management(node.management_url, node.admin_username, node.admin_password) as management:
        while True:
            (seen,) = (each for each in management.queues(vhost.name) if each.name == queue)
            if (seen.messages_ready, seen.messages_unacknowledged) == (0, 1):
                return
            assert time.monotonic() < end, seen
            time.sleep(0.1)
