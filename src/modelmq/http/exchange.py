"""What passes between the server and its handler, and how a response looks as bytes. Pure."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from http import HTTPStatus

import msgspec

JSON_TYPE = "application/json"


class HttpRequest(msgspec.Struct):
    """One request, complete. `target` is what stood in the request line; header names are in lower case."""

    method: str
    target: bytes
    headers: dict[bytes, bytes]
    body: bytes = b""


class HttpResponse(msgspec.Struct):
    """`headers` go out beside type and length; `close` ends the connection behind it."""

    status: int
    body: bytes
    content_type: str = JSON_TYPE
    headers: tuple[tuple[str, str], ...] = ()
    close: bool = False


Handler = Callable[[HttpRequest], Awaitable[HttpResponse]]
"""Cancelled when the client goes away."""


class Limits(msgspec.Struct, frozen=True):
    """What one server takes at most."""

    max_body_bytes: int
    max_head_bytes: int = 32_768
    """Of a request line with headers, and of what stands between the pieces of a chunked body or behind it."""
    max_headers: int = 128
    """Of one request: as objects, tiny ones take many times their bytes."""
    max_buffered_bytes: int = 512 * 1024 * 1024
    """Of all bodies that are held at one time."""
    max_unsent_bytes: int = 512 * 1024 * 1024
    """Of all answers that wait for clients that do not read them."""
    max_connections: int = 8192
    """Fewer where the process may not open as many files."""
    max_pipelined: int = 64
    """Requests of one connection that wait for their predecessors."""
    head_s: float = 10.0
    """From the first byte of a request to the end of its headers."""
    stall_s: float = 30.0
    """Silence within a body, or a client that does not read."""
    body_s: float = 300.0
    """From the end of the headers to the end of the body, however steadily it comes."""
    min_body_rate: float = 1000.0
    """Bytes per second at which a body must come on the whole, once it has taken `stall_s`."""
    idle_s: float = 75.0
    """Silence between two requests."""
    backlog: int = 1024


class _Error(msgspec.Struct):
    error: str


_encode = msgspec.json.Encoder().encode


def json_error(status: int, message: str, *headers: tuple[str, str], close: bool = False) -> HttpResponse:
    """`{"error": message}`, the only form in which anything is refused."""
    return HttpResponse(status, _encode(_Error(message)), headers=headers, close=close)


_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus}


def head_of(response: HttpResponse, date: str, connection: str) -> bytes:
    """Status line and headers. `connection` is empty where HTTP/1.1's default holds."""
    line = _STATUS_LINES.get(response.status) or f"HTTP/1.1 {response.status} \r\n"
    extra = "".join([f"{name}: {_one_line(value)}\r\n" for name, value in response.headers])
    if connection:
        extra += f"connection: {connection}\r\n"
    return (
        f"{line}content-type: {response.content_type}\r\ncontent-length: {len(response.body)}\r\n"
        f"date: {date}\r\n{extra}\r\n"
    ).encode("latin-1", "replace")


def _one_line(value: str) -> str:
    """A header's value must not begin another header."""
    return value if value.isprintable() else "".join(each if each.isprintable() else " " for each in value)
