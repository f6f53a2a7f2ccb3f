from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

Start = Callable[..., Awaitable[Any]]
Connect = Callable[[Any], Awaitable[Any]]


def post(path: str, body: bytes, *headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


def get(path: str, *headers: str, version: str = "1.1", method: str = "GET") -> bytes:
    return ("\r\n".join([f"{method} {path} HTTP/{version}", "Host: x", *headers]) + "\r\n\r\n").encode()


async def test_one_connection_carries_many_requests(start: Start, connect: Connect) -> None:
    line = await connect(await start())
    for number in range(3):
        await line.send(post(f"/{number}", b"hello"))
        status, headers, body = await line.answer()
        assert (status, body) == (200, b"/%d|hello" % number)
        assert "connection" not in headers
        assert headers["date"].endswith("GMT")


async def test_pipelined_requests_are_answered_in_their_order(start: Start, connect: Connect) -> None:
    site = await start()
    line = await connect(site)
    await line.send(get("/wait") + post("/2", b"two") + get("/3"))
    await site.entered.wait()
    assert len(site.requests) == 1
    site.open.set()
    assert [(await line.answer())[2] for _ in range(3)] == [b"/wait|", b"/2|two", b"/3|"]


async def test_too_many_pipelined_requests_end_the_connection_behind_what_is_owed(
    start: Start, connect: Connect
) -> None:
    site = await start(max_pipelined=4)
    line = await connect(site)
    await line.send(get("/wait") * 10)
    await site.entered.wait()
    site.open.set()
    statuses = [(await line.answer())[0] for _ in range(7)]
    assert statuses == [200] * 6 + [429]
    assert await line.rest() == b""


async def test_head_tells_the_length_and_sends_nothing(start: Start, connect: Connect) -> None:
    line = await connect(await start())
    await line.send(get("/x", method="HEAD") + get("/y"))
    head = await line.reader.readuntil(b"\r\n\r\n")
    assert b"content-length: 3\r\n" in head
    assert (await line.answer())[2] == b"/y|"


async def test_http_1_0_closes_unless_asked_to_keep(start: Start, connect: Connect) -> None:
    site = await start()
    line = await connect(site)
    await line.send(get("/a", "Connection: keep-alive", version="1.0"))
    assert (await line.answer())[1]["connection"] == "keep-alive"
    await line.send(get("/b", version="1.0"))
    assert (await line.answer())[1]["connection"] == "close"
    assert await line.rest() == b""


async def test_connection_close_is_obeyed(start: Start, connect: Connect) -> None:
    line = await connect(await start())
    await line.send(get("/a", "Connection: close"))
    assert (await line.answer())[1]["connection"] == "close"
    assert await line.rest() == b""


async def test_a_declared_body_over_the_limit_is_refused_before_it_is_sent(start: Start, connect: Connect) -> None:
    site = await start()
    line = await connect(site)
    await line.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n")
    status, headers, body = await line.answer()
    assert status == 413
    assert headers["connection"] == "close"
    assert b"100000000" in body
    assert msgspec.json.decode(body).keys() == {"error"}
    assert site.requests == []


async def test_who_sends_a_large_body_all_the_same_still_reads_the_answer(start: Start, connect: Connect) -> None:
    line = await connect(await start())
    await line.send(post("/", b"x" * 5_000_000))
    assert (await line.answer())[0] == 413


async def test_a_chunked_body_over_the_limit_is_refused(start: Start, connect: Connect) -> None:
    site = await start()
    line = await connect(site)
    await line.send(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(3):
        await line.send(b"190\r\n" + b"x" * 400 + b"\r\n")
    assert (await line.answer())[0] == 413
    assert site.requests == []


async def test_a_chunked_body_is_put_together(start: Start, connect: Connect) -> None:
    line = await connect(await start())
    await line.send(
        b"POST /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n"
    )
    assert (await line.answer())[2] == b"/c|abcdefg"


async def test_expect_continue_is_answered_before_the_body_comes(start: Start, connect: Connect) -> None:
    line = await connect(await start())
    for _ in range(2):
        await line.send(post("/e", b"", "Expect: 100-continue").replace(b"Content-Length: 0", b"Content-Length: 2"))
        assert await line.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        await line.send(b"ok")
        assert (await line.answer())[2] == b"/e|ok"


async def test_expect_continue_with_too_much_is_refused_at_once(start: Start, connect: Connect) -> None:
    line = await connect(await start())
    await line.send(b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1001\r\n\r\n")
    assert (await line.answer())[0] == 413
    assert await line.rest() == b""


async def test_continue_is_not_mixed_into_the_answer_before(start: Start, connect: Connect) -> None:
    site = await start()
    line = await connect(site)
    await line.send(get("/wait") + b"POST /e HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
    await site.entered.wait()
    site.open.set()
    assert (await line.answer())[2] == b"/wait|"
    assert await line.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    await line.send(b"ok")
    assert (await line.answer())[2] == b"/e|ok"


async def test_a_client_that_goes_away_cancels_its_request(start: Start, connect: Connect) -> None:
    site = await start()
    line = await connect(site)
    await line.send(get("/wait"))
    await site.entered.wait()
    await line.close()
    await asyncio.wait_for(site.cancelled.wait(), 10)


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
        b"GET /a b c HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon here\r\n\r\n",
    ],
)
async def test_what_is_not_http_gets_one_json_error(start: Start, connect: Connect, garbage: bytes) -> None:
    site = await start()
    line = await connect(site)
    await line.send(garbage)
    status, headers, body = await line.answer()
    assert status == 400
    assert headers["connection"] == "close"
    assert msgspec.json.decode(body).keys() == {"error"}
    assert await line.rest() == b""
    assert site.requests == []


async def test_garbage_behind_a_request_is_told_behind_its_answer(start: Start, connect: Connect) -> None:
    site = await start()
    line = await connect(site)
    await line.send(get("/wait") + b"nonsense\r\n\r\n")
    await site.entered.wait()
    site.open.set()
    assert [(await line.answer())[0] for _ in range(2)] == [200, 400]


async def test_a_wish_for_another_protocol_is_answered_in_this_one(start: Start, connect: Connect) -> None:
    line = await connect(await start())
    await line.send(get("/u", "Connection: Upgrade", "Upgrade: h2c"))
    status, headers, body = await line.answer()
    assert (status, headers["connection"], body) == (200, "close", b"/u|")


async def test_a_head_that_does_not_end_is_refused(start: Start, connect: Connect) -> None:
    line = await connect(await start(max_head_bytes=2000))
    await line.send(b"GET / HTTP/1.1\r\nHost: x\r\n")
    for number in range(100):
        await line.send(b"X-%d: " % number + b"y" * 100 + b"\r\n")
        await asyncio.sleep(0)
    assert (await line.answer())[0] == 431


async def test_a_bug_in_the_handler_is_a_500_and_is_told_to_the_loop(start: Start, connect: Connect) -> None:
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    line = await connect(await start())
    await line.send(get("/bug") + get("/next"))
    assert (await line.answer())[0] == 500
    assert (await line.answer())[2] == b"/next|"
    assert isinstance(told[0]["exception"], RuntimeError)


async def test_more_connections_than_allowed_are_told_so(start: Start, connect: Connect) -> None:
    site = await start(max_connections=1)
    first = await connect(site)
    await first.send(get("/1"))
    await first.answer()
    second = await connect(site)
    status, headers, _ = await second.answer()
    assert (status, headers["retry-after"]) == (503, "1")
    await first.send(get("/2"))
    assert (await first.answer())[0] == 200


async def test_bodies_are_bounded_all_together(start: Start, connect: Connect) -> None:
    site = await start(max_buffered_bytes=1500)
    first = await connect(site)
    await first.send(post("/wait", b"x" * 1000))
    await site.entered.wait()
    second = await connect(site)
    await second.send(post("/2", b"x" * 1000))
    assert (await second.answer())[0] == 503
    site.open.set()
    await first.answer()
    third = await connect(site)
    await third.send(post("/3", b"x" * 1000))
    assert (await third.answer())[0] == 200


@pytest.mark.parametrize(
    ("limit", "sent", "status"),
    [
        ("head_s", b"GET / HT", 408),
        ("stall_s", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nab", 408),
    ],
)
async def test_a_slow_client_is_told_and_ended(
    start: Start, connect: Connect, limit: str, sent: bytes, status: int
) -> None:
    line = await connect(await start(**{limit: 0.01}))
    await line.send(sent)
    assert (await line.answer())[0] == status


async def test_a_connection_without_requests_is_ended_in_silence(start: Start, connect: Connect) -> None:
    line = await connect(await start(idle_s=0.01))
    assert await line.rest() == b""
