"""A raw-socket fuzzer against a gateway process with a real worker behind it.

A few seconds long. Longer, or with the seed that a failure names, by the environment: `FUZZ_S=600 FUZZ_SEED=7`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import time
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

import msgspec
import psutil
import pytest

from tests import attacks
from tests.attacks import Answer, Attack

from .conftest import Broker, Child

pytestmark = pytest.mark.broker
Async = Callable[..., Awaitable[Any]]

MEGABYTE = 1_000_000
AT_ONCE = 24
QUIET_S = 0.1
"""After which nothing more is expected of a server that waits for more."""
SEED = int(os.environ.get("FUZZ_SEED", "1"))
DURATION_S = float(os.environ.get("FUZZ_S", "3"))

AMBIGUOUS = {
    "both lengths": b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "both lengths, the other way round": b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "two lengths": b"Content-Length: 0\r\nContent-Length: 44\r\n\r\n",
    "the same length twice": b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
    "a list of lengths": b"Content-Length: 2, 2\r\n\r\n{}",
    "a length in a fold": b"X: y\r\n Content-Length: 2\r\n\r\n{}",
    "a length behind a line feed": b"X: y\nContent-Length: 2\r\n\r\n{}",
    "a length behind a carriage return": b"X: y\rContent-Length: 2\r\n\r\n{}",
    "a coding behind a space": b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "a coding that is none": b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
}


@pytest.fixture
async def gateway(make_model: Callable[..., None], declare: Async, spawn: Async, broker: Broker) -> Child:
    make_model("m")
    await declare(broker)
    child = await spawn("gateway", broker)
    await spawn("worker", broker)
    return child


async def talk(port: int, sent: Attack) -> bytes:
    """All that comes back: until the server closes, or, where it waits for more, until it has closed behind our end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**24)
    found = b""
    try:
        with contextlib.suppress(ConnectionError):
            for piece in sent.pieces:
                writer.write(piece)
                await asyncio.sleep(0)
            if sent.leaves:
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return b""
            wanted, count = len(sent.expected or ()), 0
            with contextlib.suppress(TimeoutError):
                while piece := await asyncio.wait_for(reader.read(2**20), 10.0 if count < wanted else QUIET_S):
                    found += piece
                    count = found.count(b"HTTP/1.1 200 OK")
            writer.write_eof()
            async with asyncio.timeout(15):
                while piece := await reader.read(2**20):
                    found += piece
        return found
    finally:
        writer.close()


def check(sent: Attack, found: bytes) -> list[Answer]:
    """Raises AssertionError, ValueError."""
    told = attacks.answers(found)
    for answer in told:
        assert answer.status in attacks.SANE, answer
        if answer.status >= 400:
            assert msgspec.json.decode(answer.body).keys() == {"error"}
    if sent.expected is not None:
        assert [answer.body for answer in told] == sent.expected
    for answer in told[:-1]:
        assert "close" not in answer.headers.get("connection", ""), "something was said behind the last word"
    return told


async def run(port: int, seed: int, until_s: float) -> int:
    """Attacks by this seed; how many."""
    chance, count = Random(seed), 0

    async def one(number: int) -> None:
        sent = attacks.attack(Random(f"{seed}-{number}"))
        found = await talk(port, sent)
        try:
            check(sent, found)
        except (AssertionError, ValueError) as error:
            pieces = b"".join(sent.pieces)[:3000]
            pytest.fail(f"FUZZ_SEED={seed}, attack {number}: {error}\nsent {pieces!r}\nfound {found[:3000]!r}")

    while time.monotonic() < until_s or not count:
        await asyncio.gather(*(one(count + each) for each in range(AT_ONCE)))
        count += AT_ONCE
        asked = [attacks.honest(chance, "m") for _ in range(3)]
        good = Attack([b"".join(sent for sent, _ in asked)], False, [body for _, body in asked])
        check(good, await talk(port, good))
    return count


def port_of(gateway: Child) -> int:
    (address,) = (line["address"] for line in gateway.lines() if line["event"] == "ServiceStarted")
    return int(address.rpartition(":")[2])


async def test_whatever_is_sent_each_answer_is_whole_and_none_is_our_bug(
    gateway: Child, record_property: Callable[[str, object], None]
) -> None:
    port, process = port_of(gateway), psutil.Process(gateway.process.pid)
    await check_smuggling(port)
    before = process.memory_full_info().uss
    count = await run(port, SEED, time.monotonic() + DURATION_S)
    record_property("attacks", count)
    assert process.memory_full_info().uss - before < 60 * MEGABYTE
    assert "Traceback" not in gateway.log.read_text()
    assert gateway.process.poll() is None


async def check_smuggling(port: int) -> None:
    """What two readers could understand in two ways is refused, and the connection with it."""
    smuggled = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n"
    for name, lines in AMBIGUOUS.items():
        attack = Attack([b"POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\n" + lines + smuggled], False, None)
        told = [(each.status, each.headers["connection"]) for each in check(attack, await talk(port, attack))]
        assert told == [(400, "close")], name
