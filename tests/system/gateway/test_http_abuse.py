"""A gateway process under clients that mean it ill: what it answers, what it holds, and that it goes on serving."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import msgspec
import psutil
import pytest

from .conftest import Broker, body_of

pytestmark = pytest.mark.broker
Async = Callable[..., Awaitable[Any]]

MEGABYTE = 1_000_000
CHUNKED = b"POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
LIVE = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n"


class Target(NamedTuple):
    """The gateway under attack."""

    port: int
    process: psutil.Process

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    def held(self) -> int:
        return int(self.process.memory_full_info().uss)

    async def answers(self, data: bytes) -> tuple[int, bytes]:
        """Status and body of the first answer to these bytes."""
        reader, writer = await self.open()
        writer.write(data)
        try:
            return await read(reader, head_only=data.startswith(b"HEAD"))
        finally:
            writer.close()

    async def serves(self) -> bool:
        return (await self.answers(LIVE)) == (200, b'{"live":true,"ready":true}')


async def read(reader: asyncio.StreamReader, *, head_only: bool = False) -> tuple[int, bytes]:
    async with asyncio.timeout(20):
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        return int(head.split()[1]), b"" if head_only else await reader.readexactly(length)


@pytest.fixture
async def target(spawn: Async, declare: Async, broker: Broker) -> Target:
    await declare(broker)
    gateway = await spawn("gateway", broker)
    (address,) = (line["address"] for line in gateway.lines() if line["event"] == "ServiceStarted")
    found = Target(int(address.rpartition(":")[2]), psutil.Process(gateway.process.pid))
    assert await found.serves()
    return found


async def test_paths_and_methods_that_fit_nothing(target: Target) -> None:
    def ask(method: bytes, path: bytes) -> bytes:
        return b"%s %s HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n" % (method, path)

    for path in (
        b"/v2/models/a%00b/infer",
        b"/v2/models/a%2Fb/infer",
        b"/v2/models/../infer",
        b"/v2/models/%2e%2e/infer",
        b"/v2/models/..%2F..%2Fetc%2Fpasswd/infer",
        b"/v2/models/a%0d%0aX-A:%20b/infer",
        b"/v2/models/%ff%fe/infer",
        b"/v2/models/a%/infer",
        b"/v2/models/m/versions/%00/infer",
        b"/v2/models/m/versions/-1/infer",
        b"/v2/models/" + b"m" * 20_000 + b"/infer",
        b"/" * 20_000,
        b"http://elsewhere/v2/models/a.b/infer",
        b"*",
    ):
        method = b"OPTIONS" if path == b"*" else b"POST"
        status, body = await target.answers(ask(method, path))
        assert (status, msgspec.json.decode(body).keys()) == (404, {"error"}), path
        assert len(body) < 500
    for method in (b"HEAD", b"OPTIONS", b"TRACE", b"DELETE", b"PUT", b"GET"):
        assert (await target.answers(ask(method, b"/v2/models/m/infer")))[0] == 405, method
    assert (await target.answers(ask(b"CONNECT", b"elsewhere:443")))[0] == 404
    assert (await target.answers(ask(b"HEAD", b"/v2"))) == (200, b"")
    assert (await target.answers(ask(b"GET", b"http://elsewhere/v2/health/live")))[0] == 200
    assert await target.serves()


@pytest.mark.parametrize(
    "begin", [CHUNKED, CHUNKED.replace(b"Transfer-Encoding: chunked", b"Content-Length: 100000000")]
)
async def test_a_hundred_megabytes_are_refused_and_not_held(target: Target, begin: bytes) -> None:
    before = target.held()
    reader, writer = await target.open()
    writer.write(begin)
    answer = asyncio.create_task(read(reader))
    megabyte = b"x" * MEGABYTE
    with contextlib.suppress(ConnectionError):
        for _ in range(100):
            writer.write(b"%x\r\n%s\r\n" % (MEGABYTE, megabyte) if begin == CHUNKED else megabyte)
            await writer.drain()
    assert (await answer)[0] == 413
    assert target.held() - before < 25 * MEGABYTE
    writer.close()
    assert await target.serves()


async def test_many_bodies_at_once_are_bounded_together(target: Target) -> None:
    """Sixty clients that each begin 14 MB: 32 full bodies fit, no more are held."""
    before = target.held()
    piece = b"x" * MEGABYTE
    peak = 0

    async def send() -> int:
        reader, writer = await target.open()
        writer.write(CHUNKED.replace(b"Transfer-Encoding: chunked", b"Content-Length: 15000000"))
        answer = asyncio.create_task(read(reader))
        with contextlib.suppress(ConnectionError):
            for _ in range(14):
                writer.write(piece)
                await writer.drain()
        sent.release()
        await ended.wait()
        writer.close()
        if not answer.done():
            answer.cancel()
            return 0
        return (await answer)[0]

    sent, ended = asyncio.Semaphore(0), asyncio.Event()
    senders = [asyncio.create_task(send()) for _ in range(60)]
    for _ in senders:
        await sent.acquire()
        peak = max(peak, target.held())
    ended.set()
    statuses = await asyncio.gather(*senders)
    assert set(statuses) == {0, 503}
    assert peak - before < 700 * MEGABYTE
    assert await target.serves()


async def test_two_thousand_idle_connections_cost_little_and_hinder_nobody(target: Target) -> None:
    before = target.held()
    writers = []
    try:
        for _ in range(2000):
            reader, writer = await target.open()
            writers.append(writer)
            writer.write(LIVE[:-2] if len(writers) % 2 else LIVE)  # half of them have begun a request
            if not len(writers) % 2:
                assert (await read(reader))[0] == 200
        assert target.held() - before < 30 * MEGABYTE
        assert await target.serves()
    finally:
        for writer in writers:
            writer.close()
    assert await target.serves()


async def test_tiny_chunks_are_not_held_one_by_one(target: Target) -> None:
    before = target.held()
    reader, writer = await target.open()
    writer.write(CHUNKED)
    for _ in range(40):
        writer.write(b"2\r\n[[\r\n" * 50_000)
        await writer.drain()
    writer.write(b"0\r\n\r\n")
    assert (await read(reader))[0] == 400  # which is what JSON says to it
    assert target.held() - before < 40 * MEGABYTE
    writer.close()
    assert await target.serves()


async def test_who_reads_no_answers_is_not_waited_for(target: Target) -> None:
    before = target.held()
    _, writer = await target.open()
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    one = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
    with contextlib.suppress(TimeoutError, ConnectionError):  # waits for a reader, or has asked for too much
        async with asyncio.timeout(3):
            while True:
                writer.write(one * 16)
                await writer.drain()
    assert target.held() - before < 20 * MEGABYTE
    writer.transport.abort()
    assert await target.serves()


async def test_hundreds_of_requests_whose_clients_leave_are_withdrawn(target: Target) -> None:
    body = body_of(1.0)
    ask = b"POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    for _ in range(300):
        _, writer = await target.open()
        writer.write(ask)
        writer.transport.abort()
    assert await target.serves()
    async with asyncio.timeout(20):
        while (
            b"modelmq_requests_in_flight 0.0"
            not in (await target.answers(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"))[1]
        ):
            pass
