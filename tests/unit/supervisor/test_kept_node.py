from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from modelmq.broker import node
from modelmq.broker.node import NodeSpec
from modelmq.errors import NodeError
from modelmq.supervisor.kept_node import KeptNode
from modelmq.supervisor.policy import RestartPolicy

ONCE = RestartPolicy(budget=1, window_s=600.0, first_delay_s=0.01)


@pytest.fixture
async def folder(tmp_path: Path) -> AsyncIterator[Path]:
    yield tmp_path / "node"
    await asyncio.to_thread(node.stop, tmp_path / "node")


async def test_it_comes_back_at_its_address_until_it_ends_too_often(folder: Path) -> None:
    problems: asyncio.Queue[str] = asyncio.Queue()
    kept = KeptNode(NodeSpec(directory=folder), problems.put_nowait, ONCE)
    async with asyncio.timeout(120):
        first = await kept.start()
        psutil.Process(first.pid).kill()
        assert "RabbitMQ ended unasked" in await problems.get()
        while (second := await asyncio.to_thread(node.find, folder)) is None or not second.version:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        assert (second.amqp_port, second.management_url) == (first.amqp_port, first.management_url)
        psutil.Process(second.pid).kill()
        assert "2 times are too many" in await kept.failed
        await kept.stop()
    assert node.find(folder) is None


async def test_a_node_that_still_boots_is_stopped_too(folder: Path) -> None:
    kept = KeptNode(NodeSpec(directory=folder), pytest.fail)
    starting = asyncio.create_task(kept.start())
    async with asyncio.timeout(120):
        while await asyncio.to_thread(node.find, folder) is None:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        starting.cancel()
        await kept.stop()
    assert node.find(folder) is None
    await kept.stop()


async def test_a_node_that_cannot_start_leaves_nothing_to_stop(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    kept = KeptNode(NodeSpec(directory=tmp_path / "file"), pytest.fail)
    with pytest.raises(NodeError):
        await kept.start()
    await kept.stop()
