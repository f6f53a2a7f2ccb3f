"""A server on a free port, and a client that writes bytes as it is told."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from modelmq.http import HttpRequest, HttpResponse, HttpServer, Limits

PATIENCE_S = 10.0


class Line:
    """A connection to the server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        """The next response; its body as long as it says."""
        async with asyncio.timeout(PATIENCE_S):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
            status, *lines = head.strip().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            body = await self.reader.readexactly(int(headers.get("content-length", 0)))
        return int(status.split()[1]), headers, body

    async def rest(self) -> bytes:
        """Everything until the server closes."""
        return await asyncio.wait_for(self.reader.read(), PATIENCE_S)

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


class Site:
    """A running server; `handler` may be exchanged."""

    def __init__(self) -> None:
        self.port = 0
        self.server: HttpServer | None = None
        self.requests: list[HttpRequest] = []
        self.cancelled = asyncio.Event()
        self.entered = asyncio.Event()
        self.open = asyncio.Event()

    async def handle(self, request: HttpRequest) -> HttpResponse:
        self.requests.append(request)
        if request.target == b"/wait":
            self.entered.set()
            try:
                await self.open.wait()
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
        if request.target == b"/bug":
            raise RuntimeError("a bug")
        return HttpResponse(200, request.target + b"|" + request.body, "text/plain")


@pytest.fixture
async def start() -> AsyncIterator[Callable[..., Awaitable[Site]]]:
    sites: list[Site] = []

    async def starter(**limits: float) -> Site:
        site = Site()
        server = HttpServer(site.handle, Limits(**{"max_body_bytes": 1000, **limits}))  # type: ignore[arg-type]
        site.server = server
        site.port = await server.start("127.0.0.1", 0, "port")
        sites.append(site)
        return site

    yield starter
    for site in sites:
        assert site.server is not None
        await site.server.close()


@pytest.fixture
async def connect() -> AsyncIterator[Callable[[Site], Awaitable[Line]]]:
    lines: list[Line] = []

    async def connector(site: Site) -> Line:
        line = Line(*await asyncio.open_connection("127.0.0.1", site.port))
        lines.append(line)
        return line

    yield connector
    for line in lines:
        await line.close()
