"""The proxy: what passes, and what each fault looks like from both ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import NamedTuple

import pytest

from tests.chaos.proxy import Link

PATIENCE_S = 10.0


class Ends(NamedTuple):
    """A connection through a link: the near end, and the far one."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    far_reader: asyncio.StreamReader
    far_writer: asyncio.StreamWriter


class Line:
    """A link in front of a server that hands on its connections."""

    def __init__(self) -> None:
        self.accepted: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
        self.writers: list[asyncio.StreamWriter] = []

    async def start(self) -> None:
        self.server = await asyncio.start_server(lambda *ends: self.accepted.put_nowait(ends), "127.0.0.1", 0)
        self.link = Link("a link", self.server.sockets[0].getsockname()[:2])
        await self.link.listen()

    async def open(self) -> Ends:
        near = await asyncio.open_connection("127.0.0.1", self.link.ports[0])
        far = await asyncio.wait_for(self.accepted.get(), PATIENCE_S)
        self.writers += [near[1], far[1]]
        return Ends(*near, *far)

    async def close(self) -> None:
        for writer in self.writers:
            writer.transport.abort()
        await self.link.close()
        self.server.close()


@pytest.fixture
async def line() -> AsyncIterator[Line]:
    line = Line()
    await line.start()
    yield line
    await line.close()


async def ended(reader: asyncio.StreamReader) -> str:
    """How a connection ends, seen from here."""
    try:
        data = await asyncio.wait_for(reader.read(), PATIENCE_S)
    except ConnectionResetError:
        return "reset"
    return f"closed after {data.decode()}"


async def passes(ends: Ends) -> None:
    for writer, reader in ((ends.writer, ends.far_reader), (ends.far_writer, ends.reader)):
        writer.write(b"ping")
        assert await asyncio.wait_for(reader.readexactly(4), PATIENCE_S) == b"ping"


async def test_everything_passes_in_order(line: Line) -> None:
    near = await asyncio.open_connection("127.0.0.1", line.link.ports[0])
    near[1].write(b"first")  # before the other side is there
    far = await asyncio.wait_for(line.accepted.get(), PATIENCE_S)
    line.writers += [near[1], far[1]]
    big = bytes(range(256)) * 20_000

    async def send() -> None:
        near[1].write(big)
        await near[1].drain()
        near[1].write_eof()

    sending = asyncio.create_task(send())
    assert await asyncio.wait_for(far[0].readexactly(5 + len(big)), PATIENCE_S) == b"first" + big
    await sending


async def test_a_cut_closes_both_ends_and_is_counted(line: Line) -> None:
    ends = await line.open()
    await passes(ends)
    assert line.link.cut() == 1
    assert [await ended(ends.reader), await ended(ends.far_reader)] == ["closed after ", "closed after "]
    assert line.link.ended == 1
    await passes(await line.open())


async def test_a_reset_ends_within_what_is_sent(line: Line) -> None:
    ends = await line.open()
    await passes(ends)
    assert line.link.reset() == 1
    ends.writer.write(b"12345678")
    assert await asyncio.wait_for(ends.far_reader.read(8), PATIENCE_S) == b"1234"
    assert [await ended(ends.reader), await ended(ends.far_reader)] == ["reset", "reset"]
    assert line.link.ended == 1


async def test_a_stalled_connection_is_silent_and_new_ones_are_not(line: Line) -> None:
    ends = await line.open()
    await passes(ends)
    assert line.link.stall() == 1
    ends.writer.write(b"lost")
    ends.far_writer.close()
    await passes(await line.open())  # later than the bytes above would have come
    assert not ends.far_reader._buffer  # type: ignore[attr-defined]
    assert not ends.reader.at_eof()
    assert line.link.ended == 0
    line.link.release()
    assert await ended(ends.reader) == "reset"
    assert line.link.ended == 1


async def test_a_slow_link_is_slow_and_loses_nothing(line: Line) -> None:
    ends = await line.open()
    line.link.bytes_per_s = 1000
    began = time.monotonic()
    ends.writer.write(b"x" * 400)
    assert await asyncio.wait_for(ends.far_reader.readexactly(400), PATIENCE_S) == b"x" * 400
    assert time.monotonic() - began > 0.25
    line.link.bytes_per_s = 0
    await passes(ends)


async def test_a_link_that_refuses_keeps_its_port_and_its_connections(line: Line) -> None:
    ends = await line.open()
    port = line.link.ports[0]
    await line.link.refuse()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)
    await passes(ends)
    await line.link.listen()
    assert line.link.ports[0] == port
    await passes(await line.open())


async def test_where_nobody_listens_the_connection_ends(line: Line) -> None:
    line.server.close()
    await line.server.wait_closed()
    reader, writer = await asyncio.open_connection("127.0.0.1", line.link.ports[0])
    line.writers.append(writer)
    assert await ended(reader) in ("reset", "closed after ")
