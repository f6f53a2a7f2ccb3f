"""The HTTP server under any cutting of the bytes, and its routes under any target."""

from __future__ import annotations

import asyncio
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from modelmq.gateway.routes import resolve
from modelmq.http import HttpRequest, HttpResponse, Limits
from modelmq.http.connection import Connection, Shared


class Wire(asyncio.Transport):
    """Keeps what is written; a socket in all that the connection asks of one."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        pass

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


async def _echo(request: HttpRequest) -> HttpResponse:
    await asyncio.sleep(0)
    return HttpResponse(200, request.method.encode() + request.target + request.body)


def _chunked(body: bytes) -> bytes:
    return b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if body else b"0\r\n\r\n"


@st.composite
def requests(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """Its bytes, and the body of the answer."""
    path = "/" + draw(st.text("abc/%20", max_size=12))
    body = draw(st.binary(max_size=300))
    if draw(st.booleans()):
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        return head + _chunked(body), b"POST" + path.encode() + body
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    return head + body, b"POST" + path.encode() + body


async def _talk(pieces: list[bytes]) -> bytes:
    wire, connection = Wire(), Connection(Shared(_echo, Limits(max_body_bytes=1000)))
    connection.connection_made(wire)
    for piece in pieces:
        connection.data_received(piece)
        await asyncio.sleep(0)
    for _ in range(200):
        await asyncio.sleep(0)
    connection.connection_lost(None)
    return wire.written


def _cut(stream: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({cut % (len(stream) + 1) for cut in cuts} | {0, len(stream)})
    return [stream[here:there] for here, there in pairwise(places)]


@given(st.lists(requests(), min_size=1, max_size=6), st.lists(st.integers(0, 5000), max_size=30))
@settings(deadline=None)
def test_answers_are_the_same_and_in_order_however_the_bytes_are_cut(
    asked: list[tuple[bytes, bytes]], cuts: list[int]
) -> None:
    written = asyncio.run(_talk(_cut(b"".join(sent for sent, _ in asked), cuts)))
    for _, expected in asked:
        head, _, rest = written.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"content-length: %d\r\n" % len(expected) in head
        assert rest[: len(expected)] == expected
        written = rest[len(expected) :]
    assert written == b""


@given(st.binary(max_size=600), st.lists(st.integers(0, 600), max_size=10))
@settings(deadline=None)
def test_any_bytes_at_all_end_in_whole_answers(garbage: bytes, cuts: list[int]) -> None:
    written = asyncio.run(_talk(_cut(garbage, cuts)))
    while written:
        head, _, rest = written.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 ")
        length = next((int(line[16:]) for line in head.split(b"\r\n") if line.startswith(b"content-length: ")), 0)
        assert len(rest) >= length
        written = rest[length:]


@given(st.binary(max_size=200) | st.text(max_size=80).map(lambda text: f"/v2/models/{text}/infer".encode()))
def test_any_target_has_a_route(target: bytes) -> None:
    route = resolve(target)
    if route.kind == "nothing":
        assert route.error.isprintable()
    else:
        assert route.error == ""
        assert route.model.isascii()
