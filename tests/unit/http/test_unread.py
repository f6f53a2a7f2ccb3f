"""Clients that do not read their answers. Time is passed to `look`, so that nobody waits for it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from modelmq.http.connection import Connection

Start = Callable[..., Awaitable[Any]]
Connect = Callable[[Any], Awaitable[Any]]
LARGE = 20_000_000
"""Bytes: systems take several megabytes for a client that does not read."""
SMALL = 30_000
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


async def stuck(site: Any, connect: Connect, *headers: bytes) -> tuple[Any, Connection]:
    """One that does not read a little that it still has to: not so much that writing is paused."""
    line, connection = await met(site, connect)
    line.writer.transport.pause_reading()
    transport = connection._transport
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    while not transport.get_write_buffer_size():
        site.requests.clear()
        await line.send(asks(SMALL))
        await until(lambda: site.requests and connection.idle)
    if headers:
        await line.send(asks(0, *headers))
        await until(transport.is_closing)
    assert connection.unread_since_s is None
    return line, connection


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


@pytest.mark.parametrize("why", ["idle", "asked to", "half closed"])
async def test_a_connection_that_cannot_close_because_nobody_reads_is_ended(
    start: Start, connect: Connect, why: str
) -> None:
    site = await start(max_body_bytes=SMALL, stall_s=STALL_S)
    shared, idle_s = site.server._shared, site.server._shared.limits.idle_s
    line, connection = await stuck(site, connect, *([b"Connection: close"] if why == "asked to" else []))
    if why == "half closed":
        connection._reading.since_s -= idle_s  # it was heard of long ago
        line.writer.write_eof()
        await until(connection._transport.is_closing)
    elif why == "idle":
        connection.look(shared.loop.time() + idle_s)
    assert connection._transport.is_closing()
    closed_s = shared.loop.time()
    connection.look(closed_s + STALL_S - 1)
    await asyncio.sleep(0)
    assert shared.connections == {connection}, "what it is owed may still be read"
    connection.look(closed_s + STALL_S)
    await until(lambda: not shared.connections)


async def test_a_connection_that_cannot_close_is_still_the_slowest_reader(start: Start, connect: Connect) -> None:
    site = await start(max_body_bytes=LARGE)
    shared = site.server._shared
    (_, closing), (_, later) = await paused(site, connect), await paused(site, connect)
    closing.close()
    shared.crowd.drop_slowest_reader()
    assert later.unread_since_s is not None
    await until(lambda: shared.connections == {later})
    assert shared.unsent_bytes == later._unsent


async def test_who_reads_late_has_all_of_the_last_answer(start: Start, connect: Connect) -> None:
    site = await start(max_body_bytes=SMALL, stall_s=STALL_S)
    line, connection = await stuck(site, connect, b"Connection: close")
    connection.look(site.server._shared.loop.time() + STALL_S - 1)
    line.writer.transport.resume_reading()
    assert (await line.rest()).endswith(b"/u|")
    await until(lambda: not site.server._shared.connections)


async def test_an_answer_that_is_being_read_is_not_cut_short_for_a_newcomer(
    start: Start, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modelmq.http.crowd.LEAST_USELESS_S", 0.0)
    monkeypatch.setattr("modelmq.http.crowd._LOOK_AGAIN_S", 0.0)
    site = await start(max_body_bytes=SMALL, max_connections=1)
    line, connection = await stuck(site, connect)
    assert (await (await connect(site)).answer())[0] == 503
    line.writer.transport.resume_reading()
    while connection._transport.get_write_buffer_size():
        assert (await line.answer())[0] == 200
    newcomer = await connect(site)
    await newcomer.send(asks(1))
    assert (await newcomer.answer())[0] == 200
    assert connection not in site.server._shared.connections, "who has read all makes room"


async def test_whoever_never_reads_makes_room_whatever_it_sends(start: Start, connect: Connect) -> None:
    site = await start(max_body_bytes=SMALL, stall_s=STALL_S)
    shared = site.server._shared
    line, connection = await stuck(site, connect)
    unread_since_s = connection._unread_since_s
    for _ in range(2):
        site.requests.clear()
        await line.send(b"\r\n" + asks(1))
        await until(lambda: site.requests and connection.idle)
    assert connection.useless_since_s == unread_since_s + STALL_S
    assert not shared.crowd.make_room(unread_since_s + STALL_S)
    assert shared.crowd.make_room(unread_since_s + STALL_S + 2)
    await until(lambda: not shared.connections)


async def test_blank_lines_are_as_silent_as_nothing(start: Start, connect: Connect) -> None:
    """What asks for nothing holds no place."""
    site = await start(max_connections=1, idle_s=75.0)
    _, connection = await met(site, connect)
    since_s = connection.useless_since_s
    assert since_s is not None
    for _ in range(3):
        connection.data_received(b"\r\n")
    assert connection.useless_since_s == since_s
    assert site.server._shared.crowd.make_room(since_s + 1.0)
    await until(lambda: not site.server._shared.connections)


async def test_blank_lines_do_not_keep_a_connection_that_asks_for_nothing(start: Start, connect: Connect) -> None:
    site = await start(idle_s=75.0)
    line, connection = await met(site, connect)
    since_s = connection.useless_since_s
    assert since_s is not None
    connection.data_received(b"\r\n")
    connection.look(since_s + 75.0 + MOMENT_S)
    assert await line.rest() == b""
    await until(lambda: not site.server._shared.connections)
