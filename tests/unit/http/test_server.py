from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import uvloop

from modelmq.http import HttpRequest, HttpResponse, HttpServer, Limits
from tests.unit.http.conftest import PATIENCE_S

Start = Callable[..., Awaitable[Any]]
Connect = Callable[[Any], Awaitable[Any]]
GET = b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n"


async def test_a_drain_answers_what_is_under_way_and_what_comes_on_open_connections(
    start: Start, connect: Connect
) -> None:
    site = await start()
    busy, kept = await connect(site), await connect(site)
    await kept.send(GET % b"/first")
    assert "connection" not in (await kept.answer())[1]
    await busy.send(GET % b"/wait")
    await site.entered.wait()
    draining = asyncio.create_task(site.server.drain(10))
    await asyncio.sleep(0)
    assert site.server.draining
    await kept.send(GET % b"/second")
    status, headers, body = await kept.answer()
    assert (status, headers["connection"], body) == (200, "close", b"/second|")
    assert not draining.done()
    site.open.set()
    assert (await busy.answer())[0] == 200
    await asyncio.wait_for(draining, 10)
    with pytest.raises(ConnectionError):
        await connect(site)


def test_who_came_before_a_drain_is_answered_though_not_yet_accepted() -> None:
    """On the loop of our services; asyncio's own drops what it has accepted and not yet told of."""

    async def drained() -> list[bytes]:
        async def handle(request: HttpRequest) -> HttpResponse:
            return HttpResponse(200, request.target)

        server = HttpServer(handle, Limits(max_body_bytes=1000))
        port = await server.start("127.0.0.1", 0, "port")
        sockets = [socket.create_connection(("127.0.0.1", port), timeout=10) for _ in range(50)]
        for each in sockets:  # the loop had no turn since
            each.sendall(GET % b"/early")
        await asyncio.wait_for(server.drain(10), 10)
        answers = [each.recv(12) for each in sockets]
        for each in sockets:
            each.close()
        return answers

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(drained()) == [b"HTTP/1.1 200"] * 50


async def test_a_drain_may_begin_with_a_time_in_which_new_connections_are_served(
    start: Start, connect: Connect
) -> None:
    site = await start()
    draining = asyncio.create_task(site.server.drain(10, after_s=3600))
    await asyncio.sleep(0)
    assert site.server.draining
    line = await connect(site)
    await line.send(GET % b"/new")
    status, headers, body = await line.answer()
    assert (status, headers["connection"], body) == (200, "close", b"/new|")
    draining.cancel()


async def test_a_drain_without_connections_ends_at_once(start: Start) -> None:
    site = await start()
    await asyncio.wait_for(site.server.drain(3600), PATIENCE_S)


async def test_idle_connections_do_not_hold_up_a_drain(start: Start, connect: Connect) -> None:
    site = await start()
    line = await connect(site)
    await line.send(GET % b"/")
    await line.answer()
    await asyncio.wait_for(site.server.drain(60), 5)
    assert await line.rest() == b""


async def test_what_is_not_answered_in_time_is_told_that_the_service_stops(start: Start, connect: Connect) -> None:
    site = await start()
    line = await connect(site)
    await line.send(GET % b"/wait")
    await site.entered.wait()
    await asyncio.wait_for(site.server.drain(0.05), 5)
    status, headers, _ = await line.answer()
    assert (status, headers["connection"], headers["retry-after"]) == (503, "close", "1")
    assert site.cancelled.is_set()


async def test_close_twice(start: Start) -> None:
    site = await start()
    await site.server.close()
    await site.server.close()
