"""Bytes that no honest client sends: each ends in one JSON error or a clean close, and the server lives on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

Start = Callable[..., Awaitable[Any]]
Connect = Callable[[Any], Awaitable[Any]]
CHUNKED = b"POST /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
GOOD = b"GET /good HTTP/1.1\r\nHost: x\r\n\r\n"


def head(*lines: bytes, begin: bytes = b"POST /p HTTP/1.1") -> bytes:
    return b"\r\n".join([begin, b"Host: x", *lines]) + b"\r\n\r\n"


async def send(line: Any, data: bytes) -> None:
    """All of it, unless the server has had enough."""
    with contextlib.suppress(ConnectionError):
        await line.send(data)


async def serves(site: Any, connect: Connect) -> None:
    line = await connect(site)
    await line.send(GOOD)
    assert (await line.answer())[2] == b"/good|"


async def left(site: Any) -> None:
    """Until the server has no connection any more."""
    shared = site.server._shared
    async with asyncio.timeout(10):
        while shared.connections:
            shared.left.clear()
            await shared.left.wait()


TWO_MEANINGS = {
    "both lengths": head(b"Content-Length: 5", b"Transfer-Encoding: chunked") + b"0\r\n\r\n" + GOOD,
    "both lengths, the other way round": head(b"Transfer-Encoding: chunked", b"Content-Length: 5") + b"0\r\n\r\n",
    "two lengths": head(b"Content-Length: 0", b"Content-Length: 44") + GOOD,
    "the same length twice": head(b"Content-Length: 2", b"Content-Length: 2") + b"ok",
    "a list of lengths": head(b"Content-Length: 2, 2") + b"ok",
    "a length with a sign": head(b"Content-Length: +2") + b"ok",
    "a negative length": head(b"Content-Length: -1"),
    "a hexadecimal length": head(b"Content-Length: 0x2") + b"ok",
    "a length with a fraction": head(b"Content-Length: 2.0") + b"ok",
    "an empty length": head(b"Content-Length: "),
    "a length beyond 64 bits": head(b"Content-Length: 18446744073709551618") + b"ok",
    "a length of 5000 digits": head(b"Content-Length: " + b"1" * 5000),
    "chunked is not last": head(b"Transfer-Encoding: chunked, gzip") + b"0\r\n\r\n",
    "nearly chunked": head(b"Transfer-Encoding: xchunked") + b"0\r\n\r\n",
    "chunked twice": head(b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity") + b"0\r\n\r\n",
    "a space before the colon": head(b"Transfer-Encoding : chunked") + b"0\r\n\r\n",
    "a header that goes on in the next line": head(b"Transfer-Encoding:\r\n chunked") + b"0\r\n\r\n" + GOOD,
    "a folded header": head(b"X-A: b\r\n c", b"Content-Length: 0"),
    "a line of only a line feed": b"POST /p HTTP/1.1\nHost: x\nContent-Length: 0\n\n",
    "a header ended by a line feed": b"POST /p HTTP/1.1\r\nHost: x\nContent-Length: 0\r\n\r\n",
    "a carriage return in a value": head(b"X-A: b\rContent-Length: 3") + b"abc",
    "a zero byte in a value": head(b"X-A: b\0c"),
    "a zero byte in a name": head(b"X\0A: b"),
    "a chunk size with a sign": CHUNKED + b"+2\r\nok\r\n0\r\n\r\n",
    "a chunk size with a prefix": CHUNKED + b"0x2\r\nok\r\n0\r\n\r\n",
    "a chunk size beyond 64 bits": CHUNKED + b"f" * 17 + b"\r\nok\r\n0\r\n\r\n",
    "a chunk longer than its size": CHUNKED + b"2\r\nokok\r\n0\r\n\r\n",
    "a chunk ended by a line feed": CHUNKED + b"2\nok\n0\n\n",
    "a space in a target": head(b"Content-Length: 0", begin=b"POST /a b HTTP/1.1"),
    "a version that is none": head(b"Content-Length: 0", begin=b"POST /a HTTP/1.1.1"),
    "an unknown method": head(b"Content-Length: 0", begin=b"FETCH /a HTTP/1.1"),
}


@pytest.mark.parametrize("data", TWO_MEANINGS.values(), ids=TWO_MEANINGS.keys())
async def test_what_two_readers_could_understand_in_two_ways_is_refused(
    start: Start, connect: Connect, data: bytes
) -> None:
    site = await start()
    line = await connect(site)
    await send(line, data)
    status, headers, body = await line.answer()
    assert (status, headers["connection"]) == (400, "close")
    assert msgspec.json.decode(body).keys() == {"error"}
    assert await line.rest() == b""
    assert site.requests == []
    await serves(site, connect)


ODD = {
    "chunk extensions": (CHUNKED + b'2;a=b;c="d"\r\nok\r\n0;e\r\n\r\n', 200),
    "trailers": (CHUNKED + b"2\r\nok\r\n0\r\nX-Late: 1\r\n\r\n", 200),
    "zeros before a chunk size": (CHUNKED + b"0000000000002\r\nok\r\n0\r\n\r\n", 200),
    "empty lines before a request": (b"\r\n\r\n" + GOOD, 200),
    "a huge chunk size": (CHUNKED + b"7fffffffffffffff\r\n" + b"x" * 2000, 413),
    "a huge length": (head(b"Content-Length: 9223372036854775807"), 413),
    "HTTP/0.9": (b"GET /\r\n\r\n", 505),
    "HTTP/2 without its preface": (b"GET / HTTP/2.0\r\nHost: x\r\n\r\n", 505),
    "the preface of HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x12\x04\0\0\0\0\0", 400),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)) * 2, 400),
    "SSH": (b"SSH-2.0-OpenSSH_9.2\r\n", 400),
    "AMQP": (b"AMQP\0\0\x09\x01", 400),
    "the absolute form": (b"GET http://elsewhere/x HTTP/1.1\r\nHost: x\r\n\r\n", 200),
    "a target that is not UTF-8": (b"GET /\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n", None),
    "a header that is not UTF-8": (head(b"X-A: \xff\xfe", begin=b"GET /x HTTP/1.1"), 200),
    "OPTIONS of everything": (b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", 200),
    "TRACE": (b"TRACE /x HTTP/1.1\r\nHost: x\r\n\r\n", 200),
    "CONNECT": (b"CONNECT elsewhere:443 HTTP/1.1\r\nHost: x\r\n\r\n\x16\x03\x01", 200),
    "a web socket": (head(b"Connection: Upgrade", b"Upgrade: websocket", begin=b"GET /x HTTP/1.1"), 200),
    "HTTP/2 as an upgrade": (head(b"Connection: Upgrade", b"Upgrade: h2c", b"Content-Length: 2") + b"ok", 200),
    "an upgrade that is not meant": (head(b"Upgrade: x", b"Content-Length: 2") + b"ok", 200),
    "a strange expectation": (head(b"Expect: a-miracle", b"Content-Length: 2") + b"ok", 200),
}  # fmt: skip


@pytest.mark.parametrize(("data", "status"), ODD.values(), ids=ODD.keys())
async def test_what_is_odd_is_answered_once_and_harms_nobody(
    start: Start, connect: Connect, data: bytes, status: int | None
) -> None:
    site = await start()
    line = await connect(site)
    await send(line, data)
    told, headers, body = await line.answer()
    assert told in ((200, 400) if status is None else (status,))
    if told != 200:
        assert headers["connection"] == "close"
        assert msgspec.json.decode(body).keys() == {"error"}
    await serves(site, connect)


async def test_a_trailer_is_no_header(start: Start, connect: Connect) -> None:
    site = await start()
    line = await connect(site)
    await line.send(CHUNKED + b"2\r\nok\r\n0\r\nHost: elsewhere\r\nX-Late: 7\r\n\r\n" + GOOD)
    assert (await line.answer())[2] == b"/c|ok"
    assert (await line.answer())[2] == b"/good|"
    assert site.requests[0].headers == {b"host": b"x", b"transfer-encoding": b"chunked"}


@pytest.mark.parametrize(
    ("begin", "piece"),
    [
        (b"GET /", b"a" * 4096),
        (b"GET / HTTP/1.1\r\n", b"X-A: b\r\n" * 500),
        (b"GET / HTTP/1.1\r\nX-A: ", b"b" * 4096),
        (CHUNKED + b"2\r\nok\r\n2;", b"x" * 4096),
        (CHUNKED + b"2\r\nok\r\n0\r\n", b"X-A: b\r\n" * 500),
        (CHUNKED + b"2\r\nok\r\n0\r\nX-A: ", b"b" * 4096),
    ],
    ids=["target", "headers", "header", "chunk extension", "trailers", "trailer"],
)
async def test_what_never_ends_is_refused(start: Start, connect: Connect, begin: bytes, piece: bytes) -> None:
    site = await start(max_head_bytes=20_000)
    line = await connect(site)
    await send(line, begin)
    for _ in range(100):
        await send(line, piece)
        await asyncio.sleep(0)
    assert (await line.answer())[0] == 431
    await serves(site, connect)


@pytest.mark.parametrize(
    "data",
    [
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX-A: " + b"b" * 70_000 + b"\r\n\r\n",
        head(*(b"X-%d: %d" % (n, n) for n in range(5000)), begin=b"GET / HTTP/1.1"),
        head(*(b"X-%d: %d" % (n, n) for n in range(5000)), b"Content-Length: 2") + b"ok",
    ],
    ids=["target", "header", "headers", "headers before a body"],
)
async def test_a_head_that_is_too_large_is_refused_however_it_comes(
    start: Start, connect: Connect, data: bytes
) -> None:
    site = await start()
    whole, pieces = await connect(site), await connect(site)
    await send(whole, data)
    assert (await whole.answer())[0] == 431
    for at in range(0, len(data), 1000):
        await send(pieces, data[at : at + 1000])
    assert (await pieces.answer())[0] == 431
    assert site.requests == []
    await serves(site, connect)


async def test_large_requests_behind_one_another_are_no_large_head(start: Start, connect: Connect) -> None:
    site = await start(max_body_bytes=100_000)
    line = await connect(site)
    one = head(b"Content-Length: 60000") + b"x" * 60_000
    many = one * 10
    for at in range(0, len(many), 60_010):  # each piece ends one request and begins the next
        await line.send(many[at : at + 60_010])
    for _ in range(10):
        assert (await line.answer())[0] == 200


async def test_a_body_of_tiny_chunks_costs_no_more_than_its_bytes(start: Start, connect: Connect) -> None:
    site = await start(max_body_bytes=200_000)
    line = await connect(site)
    await line.send(CHUNKED + b"2\r\nok\r\n" * 100_000 + b"0\r\n\r\n")
    status, _, body = await line.answer()
    assert (status, len(body)) == (200, 200_003)


@pytest.mark.parametrize("begin", [CHUNKED, head(b"Content-Length: 900")], ids=["chunked", "with a length"])
async def test_a_body_that_drips_is_ended(start: Start, connect: Connect, begin: bytes) -> None:
    site = await start(body_s=0.2)
    line = await connect(site)
    await line.send(begin)
    answer = asyncio.create_task(line.answer())
    while not answer.done():
        await send(line, b"1\r\nx\r\n" if begin == CHUNKED else b"x")
        await asyncio.sleep(0.02)
    assert (await answer)[0] == 408
    await serves(site, connect)


async def test_a_head_that_drips_is_ended(start: Start, connect: Connect) -> None:
    site = await start(head_s=0.2)
    line = await connect(site)
    await line.send(b"GET / HTTP/1.1\r\n")
    answer = asyncio.create_task(line.answer())
    while not answer.done():
        await send(line, b"X: y\r\n")
        await asyncio.sleep(0.02)
    assert (await answer)[0] == 408
    await serves(site, connect)


async def test_good_and_bad_in_one_piece(start: Start, connect: Connect) -> None:
    site = await start()
    line = await connect(site)
    await line.send(GOOD + head(b"Content-Length: 2") + b"ok" + head(b"Content-Length: x") + GOOD)
    assert [(await line.answer())[0] for _ in range(3)] == [200, 200, 400]
    assert await line.rest() == b""
    assert len(site.requests) == 2


async def test_a_client_that_reads_nothing_is_ended_and_holds_little(start: Start, connect: Connect) -> None:
    site = await start(stall_s=0.2, max_body_bytes=1_000_000)
    line = await connect(site)
    line.writer.transport.pause_reading()
    asked = head(b"Content-Length: 500000") + b"x" * 500_000
    with contextlib.suppress(ConnectionError, TimeoutError):
        async with asyncio.timeout(10):
            for _ in range(1000):
                await line.send(asked)
    assert len(site.requests) < 100
    await left(site)
    assert site.server._shared.buffered_bytes == 0
    await serves(site, connect)


async def test_far_too_many_connections_are_dropped_unanswered(start: Start, connect: Connect) -> None:
    site = await start(max_connections=2)
    lines = [await connect(site) for _ in range(10)]
    answers = [await line.rest() for line in lines[2:]]
    assert answers[0].startswith(b"HTTP/1.1 503")
    assert b"" in answers
    for line in lines:
        await line.close()
    await left(site)
    await serves(site, connect)


async def test_silent_connections_make_room_for_those_that_ask(
    start: Start, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Idle, never heard of, or with half a head: who has been so for longest goes, never who waits for an answer."""
    monkeypatch.setattr("modelmq.http.crowd.LEAST_USELESS_S", 0.0)
    monkeypatch.setattr("modelmq.http.crowd._LOOK_AGAIN_S", 0.0)
    site = await start(max_connections=4)
    busy, kept, silent, slow = [await connect(site) for _ in range(4)]
    await busy.send(GOOD.replace(b"/good", b"/wait"))
    await site.entered.wait()
    await kept.send(GOOD)
    await kept.answer()
    await slow.send(b"GET /slow HT")
    for line in (silent, kept, slow):
        await serves(site, connect)
        with contextlib.suppress(ConnectionError):
            assert await line.rest() == b""
    site.open.set()
    assert (await busy.answer())[0] == 200


async def test_where_all_ask_a_newcomer_is_refused(start: Start, connect: Connect) -> None:
    site = await start(max_connections=1)
    busy = await connect(site)
    await busy.send(GOOD.replace(b"/good", b"/wait"))
    await site.entered.wait()
    assert (await (await connect(site)).answer())[0] == 503
    site.open.set()
    assert (await busy.answer())[0] == 200


async def test_more_connections_than_files_are_not_promised(
    start: Start, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _which: (160, 160))
    site = await start(max_connections=8192)
    assert site.server._shared.limits.max_connections == 28


@pytest.mark.parametrize("times", [1, 2])
async def test_more_headers_than_any_client_sends_are_refused(start: Start, connect: Connect, times: int) -> None:
    site = await start()
    line = await connect(site)
    many = head(*(b"x%d:" % n for n in range(200)), begin=b"GET / HTTP/1.1")
    await send(line, many * times)
    assert (await line.answer())[0] == 431
    assert await line.rest() == b"", "one refusal, however many stood in one piece"
    assert site.requests == []
    few = await connect(site)
    await few.send(head(*(b"x%d:" % n for n in range(100)), begin=b"GET /good HTTP/1.1"))
    assert (await few.answer())[0] == 200


async def test_behind_a_refusal_nothing_is_said(start: Start, connect: Connect) -> None:
    site = await start()
    line = await connect(site)
    await line.send(b"GET / HTTP/2.0\r\n\r\n" + head(b"Expect: 100-continue", b"Content-Length: 2"))
    assert (await line.answer())[0] == 505
    assert await line.rest() == b""


async def test_a_body_below_the_least_rate_is_ended(start: Start, connect: Connect) -> None:
    site = await start(stall_s=0.2, min_body_rate=10_000)
    fast, slow = await connect(site), await connect(site)
    for line in (fast, slow):
        await line.send(head(b"Content-Length: 900"))
    answer = asyncio.create_task(slow.answer())
    while not answer.done():
        await send(slow, b"x")
        await asyncio.sleep(0.02)
    assert (await answer)[0] == 408
    await serves(site, connect)


async def test_answers_that_nobody_reads_are_bounded_together(start: Start, connect: Connect) -> None:
    """Who has not read for longest is ended; who reads is served."""
    body = b"x" * 20_000_000  # systems take several megabytes for a client that does not read
    site = await start(max_body_bytes=len(body), max_unsent_bytes=25_000_000)
    lines = []
    for _ in range(4):
        line = await connect(site)
        line.writer.transport.pause_reading()
        await line.send(head(b"Content-Length: %d" % len(body)) + body)
        lines.append(line)
    shared = site.server._shared
    async with asyncio.timeout(10):
        while len(shared.connections) == len(lines):
            shared.left.clear()
            await shared.left.wait()
    assert shared.unsent_bytes <= 25_000_000
    lines[-1].writer.transport.resume_reading()
    assert len((await lines[-1].answer())[2]) == len(body) + 3
    for line in lines:
        await line.close()
    await left(site)
    assert shared.unsent_bytes == 0
    await serves(site, connect)
