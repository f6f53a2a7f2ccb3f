"""An installation on the session's node, its services as processes, and links that fall silent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import httpx
import pytest

from modelmq.broker.node import RunningNode
from tests.system.rotation.conftest import Installation, admin, installation, spawn

__all__ = ["admin", "installation", "spawn"]  # fixtures

CONFIRM_S = {"MODELMQ_GATEWAY_CONFIRM_TIMEOUT_S": "30"}
"""So that nothing is given up while the broker is out of reach."""


class Line:
    """A way to the broker. Silent, it takes what is written and passes nothing on; new connections are not affected."""

    def __init__(self, broker_port: int) -> None:
        self._broker_port = broker_port
        self._passing: list[asyncio.Event] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []
        self._server: asyncio.Server | None = None
        self.host = ""

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._on_connection, "127.0.0.1", 0)
        self.host = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def fall_silent(self) -> None:
        for passing in self._passing:
            passing.clear()
        self._passing.clear()

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._writers:
            writer.transport.abort()

    async def _on_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._broker_port)
        passing = asyncio.Event()
        passing.set()
        self._passing.append(passing)
        self._writers += [writer, back]
        for source, target in ((reader, back), (there, writer)):
            task = asyncio.create_task(_pump(source, target, passing))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)


async def _pump(source: asyncio.StreamReader, target: asyncio.StreamWriter, passing: asyncio.Event) -> None:
    with suppress(OSError):
        while data := await source.read(65536):
            if passing.is_set():
                target.write(data)
                await target.drain()
    if passing.is_set():
        target.transport.abort()


@pytest.fixture
async def line(node: RunningNode) -> AsyncIterator[Callable[[], Any]]:
    """Makes lines to the node."""
    made: list[Line] = []

    async def maker() -> Line:
        made.append(Line(node.amqp_port))
        await made[-1].open()
        return made[-1]

    yield maker
    for each in made:
        await each.close()


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=60, trust_env=False) as client:
        yield client


async def serving(http: httpx.AsyncClient, gateway: Any, model: str) -> None:
    """Wait until the gateway has heard of a worker for the model."""
    async with asyncio.timeout(60):
        url = f"{gateway.address}/v2/models/{model}/ready"
        while (await http.get(url)).status_code != 200:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.05)


def rights(installation: Installation, admin: Any, service: str, **changes: str) -> dict[str, str]:
    """Changes what a service's user may do; what it might before."""
    vhost = installation.settings.broker.vhost
    user = installation.user(service)
    with installation.management as management:
        before = next(each for each in management.permissions(vhost) if each.user == user)
    fields = {"configure": before.configure, "write": before.write, "read": before.read}
    admin.call("PUT", f"permissions/{vhost}/{user}", fields | changes)
    return fields
