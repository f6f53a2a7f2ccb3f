"""One kept-alive HTTP connection with one question at a time: as little as a caller needs."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import NamedTuple

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CLOSE = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)


class Response(NamedTuple):
    """Its body is complete."""

    status: int
    body: bytes


class HttpConnection(asyncio.Protocol):
    """`ask` raises ConnectionError when it ends without an answer; `on_stray` hears what was not asked for."""

    def __init__(self, on_stray: Callable[[bytes], None]) -> None:
        self.open = False
        self._on_stray = on_stray
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[Response] | None = None
        self._buffer = b""
        self._last = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment] - uvloop's is no asyncio.Transport
        self.open = True

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False
        answer, self._answer = self._answer, None
        if answer is not None and not answer.done():
            answer.set_exception(ConnectionError(str(exc or "closed")))

    def data_received(self, data: bytes) -> None:
        if self._answer is None:
            self._on_stray(data)
            return
        self._buffer += data
        head, separator, rest = self._buffer.partition(b"\r\n\r\n")
        if not separator:
            return
        length = _LENGTH.search(head)
        size = int(length[1]) if length else 0
        if len(rest) < size:
            return
        self._buffer = b""
        if len(rest) > size:
            self._on_stray(rest[size:])
        if _CLOSE.search(head):
            self.close()
        answer, self._answer = self._answer, None
        if not answer.done():
            answer.set_result(Response(int(head[9:12]), rest[:size]))

    async def ask(self, request: bytes) -> Response:
        """Cancelled, it closes the connection: the server sees that the caller is gone."""
        if self._transport is None or not self.open:
            raise ConnectionError("closed before the request was sent")
        answer = self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        try:
            return await answer
        except asyncio.CancelledError:
            self.close()
            raise

    def close(self) -> None:
        self.open = False
        if self._transport is not None:
            self._transport.abort()
