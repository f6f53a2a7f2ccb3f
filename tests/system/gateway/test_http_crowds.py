"""A gateway process under crowds: ten thousand who only hold a connection, and hundreds who are slow on purpose.

All the while good requests are served, and what is held is measured.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import selectors
import socket
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import psutil
import pytest

from tests.attacks import answers

from .conftest import Broker, Child

pytestmark = pytest.mark.broker
Async = Callable[..., Awaitable[Any]]

LIVE = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n"
BEGUN = b"POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\n"
OWN_FILES = 200
"""Of this process, beside the connections."""


@pytest.fixture
def many_files() -> Iterator[int]:
    """How many connections this process may open; the limit is raised as far as that goes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield (65_536 if hard == resource.RLIM_INFINITY else hard) - OWN_FILES
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Target:
    """A gateway, and what it holds."""

    def __init__(self, gateway: Child) -> None:
        (address,) = (line["address"] for line in gateway.lines() if line["event"] == "ServiceStarted")
        self.address = ("127.0.0.1", int(address.rpartition(":")[2]))
        self._process = psutil.Process(gateway.process.pid)
        self._before = self.held()

    def held(self) -> int:
        return int(self._process.memory_full_info().uss)

    @property
    def grown(self) -> int:
        return self.held() - self._before

    def open(self, data: bytes = b"") -> socket.socket:
        made = socket.create_connection(self.address, 20)
        made.sendall(data)
        return made

    def asks(self) -> int:
        """The status of one good request, on a connection of its own."""
        with self.open(LIVE) as line:
            line.settimeout(20)
            return answers(line.recv(65_536))[0].status

    def asks_until(self, status: int) -> None:
        while self.asks() != status:
            pass


def drip(lines: list[socket.socket], piece: bytes, beside: Callable[[], object]) -> list[bytes]:
    """A piece to each again and again, until the server has ended all; what it said to each."""
    said = dict.fromkeys(lines, b"")
    with selectors.DefaultSelector() as selector:
        for line in lines:
            line.setblocking(False)
            selector.register(line, selectors.EVENT_READ)
        while selector.get_map():
            beside()
            for key, _ in selector.select(0.05):
                line = key.fileobj
                assert isinstance(line, socket.socket)
                with contextlib.suppress(ConnectionError):
                    data = line.recv(65_536)
                    said[line] += data
                    if data:
                        continue
                selector.unregister(line)
                line.close()
            for key in selector.get_map().values():
                with contextlib.suppress(OSError):
                    key.fileobj.send(piece)  # type: ignore[union-attr]
    return list(said.values())


async def test_ten_thousand_idle_connections_cost_little_and_hinder_nobody(
    spawn: Async, broker: Broker, many_files: int, record_property: Callable[[str, object], None]
) -> None:
    gateway = await spawn("gateway", broker, MODELMQ_GATEWAY_MAX_CONNECTIONS="12000")
    target = Target(gateway)
    count = min(10_000, (many_files - OWN_FILES) * 8 // 9)
    lines = [target.open() for _ in range(count)]
    try:
        assert [target.asks() for _ in range(20)] == [200] * 20
        each = target.grown / count
        record_property("idle_connections", f"{count}, {each:.0f} bytes each")
        assert each < 10_000
        for line in lines[:: count // 10]:
            line.sendall(LIVE)
            assert answers(line.recv(65_536))[0].status == 200, "who was idle is served"
    finally:
        for line in lines:
            line.close()
    assert target.asks() == 200


async def test_a_crowd_that_fills_every_place_makes_room_for_those_who_ask(spawn: Async, broker: Broker) -> None:
    gateway = await spawn(
        "gateway",
        broker,
        MODELMQ_GATEWAY_MAX_CONNECTIONS="100",
        MODELMQ_GATEWAY_HEAD_TIMEOUT_S="1000",
        MODELMQ_GATEWAY_BODY_TIMEOUT_S="2",
    )
    target = Target(gateway)
    with contextlib.ExitStack() as closing:
        for data in (b"", LIVE, BEGUN) * 33:
            closing.enter_context(target.open(data))
        await asyncio.to_thread(target.asks_until, 200)  # a second later the first of them are of no use any more
        assert [target.asks() for _ in range(30)] == [200] * 30
    # Head byte by byte, and body: each is told 408 or loses its place to somebody who asks.
    for begun, piece in ((BEGUN, b"X"), (BEGUN + b"Content-Length: 9000\r\n\r\n", b"x")):
        lines = [target.open(begun) for _ in range(90)]
        if begun == BEGUN:
            assert [target.asks() for _ in range(30)] == [200] * 30
            for line in lines:
                line.close()
        else:
            said = await asyncio.to_thread(drip, lines, piece, lambda: target.asks_until(200))
            assert {answers(each)[0].status for each in said if each} == {408}
    assert target.grown < 20_000_000


async def test_heads_that_drip_are_told_so_and_floods_of_them_are_not_held(spawn: Async, broker: Broker) -> None:
    gateway = await spawn("gateway", broker, MODELMQ_GATEWAY_HEAD_TIMEOUT_S="1")
    target = Target(gateway)
    lines = [target.open(BEGUN) for _ in range(300)]
    said = await asyncio.to_thread(drip, lines, b"X", lambda: target.asks_until(200))
    assert {answers(each)[0].status for each in said} == {408}
    many = b"".join(b"x%d:\r\n" % number for number in range(3000))
    long = b"X: " + b"x" * 1_000_000 + b"\r\n"
    for flood in (many, long):
        for _ in range(50):
            with contextlib.suppress(ConnectionError), target.open(BEGUN) as line:
                line.sendall(flood + b"\r\n")
                assert answers(line.recv(65_536))[0].status == 431
    assert target.asks() == 200
    # Requests behind one another, whose answers nobody reads.
    with contextlib.ExitStack() as closing:
        for _ in range(100):
            line = closing.enter_context(target.open())
            line.setblocking(False)
            with contextlib.suppress(OSError):
                for _ in range(50):
                    line.send(LIVE * 500)
        assert [target.asks() for _ in range(20)] == [200] * 20
        assert target.grown < 60_000_000
    assert target.asks() == 200


async def test_a_workers_health_port_has_the_same_limits(
    spawn: Async, broker: Broker, make_model: Callable[..., None], declare: Async
) -> None:
    """Whoever holds all its connections does not have the worker ended for want of an answer."""
    make_model("m")
    await declare(broker)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    worker = await spawn("worker", broker, MODELMQ_WORKER_HEALTH_PORT=str(port))

    def ask(data: bytes) -> int:
        with socket.create_connection(("127.0.0.1", port), 20) as line:
            line.sendall(data)
            return answers(line.recv(65_536))[0].status

    def ask_until_served() -> None:
        while ask(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n") != 200:
            pass

    with contextlib.ExitStack() as closing:
        for _ in range(64):
            closing.enter_context(socket.create_connection(("127.0.0.1", port), 20))
        await asyncio.to_thread(ask_until_served)
    assert ask(b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 70000\r\n\r\n") == 413
    assert ask(b"GET /" + b"x" * 40_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n") == 431
    assert ask(BEGUN + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n") == 400
    assert worker.process.poll() is None
