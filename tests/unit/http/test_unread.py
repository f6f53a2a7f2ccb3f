"""Clients that do not read their answers. Time is passed to `look`, so that nobody waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from modelmq.http.connection import Connection

Start = Callable[..., Awaitable[Any]]
Connect = Callable[[Any], Awaitable[Any]]
LARGE = 20_000_000
"""Bytes: systems take several megabytes for a client that does not read."""
STALL_S = 30.0
MOMENT_S = 1e-6
"""Shorter than any way through a socket."""


def asks(size: int, *headers: bytes) -> bytes:
    return b"\r\n".join([b"POST /u HTTP/1.1", b"Content-Length: %d" % size, *headers, b"", b"x" * size])


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 - a connection tells nobody what it is waiting for
            await asyncio.sleep(0)


async def met(site: Any, connect: Connect) -> tuple[Any, Connection]:
    """A client, and what the server knows it by."""
    before = set(site.server._shared.connections)
    line = await connect(site)
    await until(lambda: site.server._shared.connections - before)
    return line, (site.server._shared.connections - before).pop()


async def paused(site: Any, connect: Connect) -> tuple[Any, Connection]:
    """One that does not read, and has so much to read that no more is written."""
    line, connection = await met(site, connect)
    line.writer.transport.pause_reading()
    await line.send(asks(LARGE))
    await until(lambda: connection.unread_since_s is not None)
    return line, connection


async def test_a_client_that_dribbles_has_not_read_for_as_long_as_one_that_is_silent(
    start: Start, connect: Connect
) -> None:
    site = await start(max_body_bytes=LARGE, stall_s=STALL_S)
    shared = site.server._shared
    (line, dribbles), (_, silent) = await paused(site, connect), await paused(site, connect)
    stopped_s = dribbles.unread_since_s
    assert stopped_s is not None
    await line.send(b"G")
    await until(lambda: not dribbles.idle)
    assert dribbles.unread_since_s == stopped_s
    shared.crowd.drop_slowest_reader()
    await until(lambda: shared.connections == {silent})


async def test_a_client_that_dribbles_is_ended_when_it_has_not_read_for_long(start: Start, connect: Connect) -> None:
    site = await start(max_body_bytes=LARGE, stall_s=STALL_S)
    line, connection = await paused(site, connect)
    stopped_s = connection.unread_since_s
    await line.send(b"G")
    await until(lambda: not connection.idle)
    connection.look(stopped_s + STALL_S + MOMENT_S)
    await until(lambda: not site.server._shared.connections)
