"""A peer that speaks AMQP just well enough to do what no real broker does on request, and the options for it."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from pamqp import body, commands, frame, header, heartbeat

from modelmq.amqp import Connection, ConnectionOptions, Credentials, Endpoint, connect

START = commands.Connection.Start(server_properties={"product": "peer"}, mechanisms="PLAIN", locales="en_US")
PATIENCE_S = 20.0
"""For what must come; a test that waits this long has failed."""

Script = Callable[["Peer"], Awaitable[None]]


@dataclass
class Peer:
    """The broker's end of one socket."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    in_pieces_of: int = 0
    seen: list[Any] = field(default_factory=list)

    def send(self, value: Any, channel: int = 0) -> None:
        self.raw(value if isinstance(value, bytes) else frame.marshal(value, channel))

    def raw(self, data: bytes) -> None:
        for at in range(0, len(data), self.in_pieces_of or len(data) or 1):
            self.writer.write(data[at : at + (self.in_pieces_of or len(data))])

    async def read(self) -> tuple[int, Any]:
        head = await self.reader.readexactly(7)
        (size,) = struct.unpack_from(">I", head, 3)
        _, channel, value = frame.unmarshal(head + await self.reader.readexactly(size + 1))
        self.seen.append(value)
        return channel, value

    async def expect(self, kind: type[Any]) -> Any:
        """The next frame of this kind; heartbeats and all else before it are passed over."""
        while True:
            _, value = await self.read()
            if isinstance(value, kind):
                return value

    async def handshake(self, heartbeat_s: int = 0, frame_max: int = 131_072) -> None:
        await self.reader.readexactly(8)
        self.send(START)
        await self.expect(commands.Connection.StartOk)
        self.send(commands.Connection.Tune(2047, frame_max, heartbeat_s))
        await self.expect(commands.Connection.Open)
        self.send(commands.Connection.OpenOk())

    async def open_channel(self) -> None:
        await self.expect(commands.Channel.Open)
        self.send(commands.Channel.OpenOk(), 1)

    def deliver(self, tag: int, content: bytes, consumer_tag: str = "c1") -> None:
        self.send(commands.Basic.Deliver(consumer_tag, tag, False, "", "q"), 1)
        self.send(header.ContentHeader(0, len(content), commands.Basic.Properties()), 1)
        if content:
            self.send(body.ContentBody(content), 1)

    def beat(self) -> None:
        self.send(heartbeat.Heartbeat())

    async def until_closed(self) -> bytes:
        """What the client still sends until it has gone; a reset is a way to go too."""
        rest = bytearray()
        try:
            while data := await self.reader.read(65_536):
                rest += data
        except ConnectionError:
            pass
        return bytes(rest)


@asynccontextmanager
async def serving(script: Script) -> AsyncIterator[ConnectionOptions]:
    """A peer that does `script` for each client; whatever fails in it fails the test."""
    failures: list[BaseException] = []
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await script(Peer(reader, writer))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client has gone
        except Exception as error:
            failures.append(error)
        finally:
            writer.transport.abort()

    def taken(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.create_task(serve(reader, writer)))

    server = await asyncio.start_server(taken, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield options_for(port)
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert not failures, failures


def options_for(port: int, **options: Any) -> ConnectionOptions:
    known = {"connect_timeout_s": PATIENCE_S, "heartbeat_s": 0.0} | options
    return ConnectionOptions(
        endpoints=(Endpoint("127.0.0.1", port),), credentials=lambda: Credentials("user", "secret"), **known
    )


@pytest.fixture
def peer() -> Callable[[Script], Any]:
    """`async with peer(script) as options`: options of a client for a server that does `script`."""
    return serving


@pytest.fixture
async def opened() -> AsyncIterator[Callable[[ConnectionOptions], Awaitable[Connection]]]:
    """Connections that are gone after the test."""
    connections: list[Connection] = []

    async def made(options: ConnectionOptions, **more: Any) -> Connection:
        connection = await connect(options, **more)
        connections.append(connection)
        return connection

    yield made
    for connection in connections:
        connection.abort()
        await asyncio.wait_for(asyncio.shield(connection.closed), PATIENCE_S)


@pytest.fixture(autouse=True)
async def no_complaints() -> AsyncIterator[list[dict[str, Any]]]:
    """What the event loop was told of: listeners that raised, exceptions nobody took. A test may clear it."""
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    yield complaints
    assert not complaints, complaints
