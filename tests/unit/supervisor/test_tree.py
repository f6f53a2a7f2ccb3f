from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from modelmq.errors import ModelMQError
from modelmq.supervisor import records
from modelmq.supervisor.policy import RestartPolicy
from modelmq.supervisor.processes import ServiceSpec
from modelmq.supervisor.tree import Tree

Fake = Callable[..., ServiceSpec]
QUICK = RestartPolicy(budget=2, window_s=600.0, first_delay_s=0.01)

# Runs until told to stop, and writes its pid for every start.
STEADY = """
open(os.environ["FOLDER"] + "/pids", "a").write(f"{os.getpid()}\\n")
ready(); signal.pause()
"""


class Problems:
    """What the tree told, and a way to wait for the next."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self._news = asyncio.Event()

    def __call__(self, sentence: str) -> None:
        self.told.append(sentence)
        self._news.set()

    async def first(self, count: int) -> list[str]:
        async with asyncio.timeout(20):
            while len(self.told) < count:
                self._news.clear()
                await self._news.wait()
        return self.told


async def pid_of(folder: Path, name: str, other_than: int = 0) -> int:
    """The pid on record once there is one that differs from the one known."""
    async with asyncio.timeout(20):
        while True:
            for record in records.read(folder / "run"):
                if record.name == name and record.process.pid != other_than:
                    return record.process.pid
            await asyncio.sleep(0.02)


async def test_a_service_that_dies_is_started_again(fake: Fake, tmp_path: Path) -> None:
    problems = Problems()
    tree = Tree(problems, QUICK)
    await tree.start(fake(STEADY), 20)
    first = await pid_of(tmp_path, "gateway")
    psutil.Process(first).kill()
    assert "The gateway was ended by SIGKILL" in (await problems.first(1))[0]
    second = await pid_of(tmp_path, "gateway", other_than=first)
    assert not tree.failed.done()
    await tree.stop()
    assert not psutil.pid_exists(second)


async def test_one_that_keeps_dying_is_given_up(fake: Fake, tmp_path: Path) -> None:
    problems = Problems()
    tree = Tree(problems, QUICK)
    await tree.start(fake("ready(); sys.exit('out of luck')"), 20)
    words = await asyncio.wait_for(tree.failed, 20)
    assert words.startswith("The gateway ended with status 1: out of luck")
    assert "It ended 3 times within 600 s, so it is not started again." in words
    assert len(problems.told) == 2
    await tree.stop()


async def test_one_that_was_told_what_cannot_be_is_not_told_again(fake: Fake) -> None:
    problems = Problems()
    tree = Tree(problems, QUICK)
    await tree.start(fake("ready(); sys.stderr.write('no such role'); sys.exit(2)"), 20)
    assert "no such role" in await asyncio.wait_for(tree.failed, 20)
    assert problems.told == []
    await tree.stop()


async def test_a_first_start_that_fails_is_an_error(fake: Fake) -> None:
    tree = Tree(Problems(), QUICK)
    with pytest.raises(ModelMQError, match="no port"):
        await tree.start(fake("sys.exit('no port')"), 20)
    await tree.stop()


async def test_stages_end_one_after_the_other(fake: Fake, tmp_path: Path) -> None:
    code = """
def on_term(*_):
    open(os.environ["FOLDER"] + "/order", "a").write("NAME ")
    sys.exit(0)
signal.signal(signal.SIGTERM, on_term)
ready(); time.sleep(1000)
"""
    tree = Tree(Problems(), QUICK)
    for name, stage in (("worker-2", 1), ("gateway", 0), ("worker-1", 1)):
        await tree.start(fake(code.replace("NAME", name), name, stage), 20)
    await tree.stop()
    order = (tmp_path / "order").read_text().split()
    assert order[0] == "gateway"
    assert set(order[1:]) == {"worker-1", "worker-2"}
    assert list(records.read(tmp_path / "run")) == []


async def test_kill_does_not_wait_for_a_drain(fake: Fake, tmp_path: Path) -> None:
    tree = Tree(Problems(), QUICK)
    await tree.start(fake("signal.signal(15, signal.SIG_IGN); ready(); time.sleep(1000)", drain_s=600), 20)
    pid = await pid_of(tmp_path, "gateway")
    draining = asyncio.create_task(tree.stop())
    await asyncio.sleep(0)
    await asyncio.wait_for(tree.kill(), 20)
    await asyncio.wait_for(draining, 20)
    assert not psutil.pid_exists(pid)


async def test_nothing_is_started_while_stopping(fake: Fake, tmp_path: Path) -> None:
    problems = Problems()
    tree = Tree(problems, RestartPolicy(first_delay_s=600, longest_delay_s=600))
    await tree.start(fake(STEADY), 20)
    pid = await pid_of(tmp_path, "gateway")
    psutil.Process(pid).kill()
    await problems.first(1)
    await tree.stop()
    assert (tmp_path / "pids").read_text().split() == [str(pid)]
