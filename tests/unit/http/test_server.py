from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

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


async def test_a_drain_without_connections_ends_at_once(start: Start) -> None:
    site = await start()
    await asyncio.wait_for(site.server.drain(60), 1)


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
