"""Requests out of one connection's bytes: each within its limits, or refused before all of it is read.

Between the socket and `connection`, which answers what is read here. Knows no socket, no order of answers and no task;
tells since when it has waited for what, and leaves it to others to lose patience.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

import httptools

from modelmq.http.exchange import HttpRequest, Limits

IDLE, HEAD, BODY = range(3)
"""Of a request what is being read."""


class Holder(Protocol):
    """What all connections of one server have in common."""

    limits: Limits
    loop: asyncio.AbstractEventLoop
    buffered_bytes: int
    """Of all bodies that are held."""


class Owner(Protocol):
    """Whose bytes they are."""

    def asked(self, request: HttpRequest, *, keep_alive: bool, old: bool) -> None:
        """A request is complete. `old`: it speaks HTTP/1.0."""
        ...

    def refused(self, status: int, message: str) -> None:
        """What comes is not to be answered otherwise; nothing more is read."""
        ...

    def expects_continue(self) -> None:
        """The body comes once that is said."""
        ...


class Reading:
    """Of one connection. The parser calls what begins with `on_`."""

    def __init__(self, owner: Owner, holder: Holder) -> None:
        self.phase = IDLE
        self.since_s = 0.0
        """When the head began or the body last grew, unless the owner has set it to when it answered or closed."""
        self.body_since_s = 0.0
        self.size = 0
        """Bytes of the body so far."""
        self.deaf = False
        """Nothing that still comes is read."""
        self._owner = owner
        self._holder = holder
        self._parser = httptools.HttpRequestParser(self)
        self._messages = 0
        """How many have begun."""
        self._head_bytes = 0
        """Of the pieces since the message began, or since its body last grew, that brought only head or framing."""
        self._piece_bytes = 0
        self._split = False
        """The head began in an earlier piece."""
        self._target = b""
        self._headers: dict[bytes, bytes] = {}
        self._body: bytes | bytearray = b""

    def feed(self, data: bytes) -> None:
        """The next piece."""
        if self.deaf:
            return
        before = self.phase, self._messages, self.size
        if self.phase == BODY:  # blank lines between two requests ask for nothing
            self.since_s = self._holder.loop.time()
        self._piece_bytes = len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # What was asked is answered in HTTP/1.1; another protocol is not spoken.
            self.deaf = True
        except httptools.HttpParserError:
            if not self.deaf:
                self._refuse(400, "This is not a valid HTTP/1.1 request.")
        if self.phase != IDLE and not self.deaf:
            self._look_at_piece(len(data), *before)

    def stop(self) -> None:
        """Read nothing more, and hold nothing of what was read."""
        self.deaf = True
        self._holder.buffered_bytes -= self.size
        self.size = 0
        self._body = b""

    # What the parser calls

    def on_message_begin(self) -> None:  # noqa: D102
        self.phase = HEAD
        self.since_s = self._holder.loop.time()
        self._messages += 1
        self._head_bytes = 0
        self._split = False
        self._target = b""
        self._headers = {}

    def on_url(self, url: bytes) -> None:  # noqa: D102
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:  # noqa: D102
        if self.phase == HEAD:  # else a trailer, which must not pass for a header
            self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:  # noqa: D102
        self.phase = BODY
        if self.deaf:
            return
        limits = self._holder.limits
        if len(self._headers) > limits.max_headers:
            self._refuse(431, f"The request has more than {limits.max_headers} headers.")
            return
        most = limits.max_head_bytes
        if (self._split or self._piece_bytes > most) and _size_of(self._target, self._headers) > most:
            self._head_too_large()
            return
        declared = self._headers.get(b"content-length")
        if declared is not None and int(declared) > limits.max_body_bytes:
            self._too_large(f"has {int(declared)} bytes")
        elif b"expect" in self._headers and self._headers[b"expect"].lower() == b"100-continue":
            self._owner.expects_continue()

    def on_body(self, body: bytes) -> None:  # noqa: D102
        if self.deaf:
            return
        holder = self._holder
        if not self.size:
            self._body = body
        else:
            if type(self._body) is bytes:  # pieces in a list would cost many times their size if they are small
                self._body = bytearray(self._body)
            self._body += body
        self.size += len(body)
        holder.buffered_bytes += len(body)
        if self.size > holder.limits.max_body_bytes:
            self._too_large("is too large")
        elif holder.buffered_bytes > holder.limits.max_buffered_bytes:
            self._refuse(503, "Too many bytes of requests are held; try again later.")

    def on_message_complete(self) -> None:  # noqa: D102
        if self.deaf:
            return
        parser, version = self._parser, self._parser.get_http_version()
        if version not in ("1.1", "1.0"):
            self._refuse(505, "Only HTTP/1.1 and HTTP/1.0 are spoken here.")
            return
        request = HttpRequest(parser.get_method().decode("latin-1"), self._target, self._headers, bytes(self._body))
        keep_alive = parser.should_keep_alive() and not parser.should_upgrade()
        self._body = b""
        self.size = 0  # from now on the owner holds it
        self.phase = IDLE
        self._owner.asked(request, keep_alive=keep_alive, old=version == "1.0")

    # What is too much

    def _look_at_piece(self, piece_bytes: int, phase: int, messages: int, size: int) -> None:
        """Behind a piece that did not end the message; given is what was the case before it."""
        same = messages == self._messages
        self._split = self.phase == HEAD
        if same and (phase == HEAD == self.phase or (phase == BODY and size == self.size)):
            # Of a body only lines between chunks, or trailers, which the parser holds until they end.
            self._head_bytes += piece_bytes
            if self._head_bytes > self._holder.limits.max_head_bytes:
                self._head_too_large()
            return
        self._head_bytes = 0
        if not same or phase == HEAD:
            self.body_since_s = self._holder.loop.time()

    def _head_too_large(self) -> None:
        self._refuse(431, f"The request's head is larger than {self._holder.limits.max_head_bytes} bytes.")

    def _too_large(self, what: str) -> None:
        limit = self._holder.limits.max_body_bytes
        self._refuse(413, f"The request's body {what}; the limit is {limit} bytes.")

    def _refuse(self, status: int, message: str) -> None:
        self.stop()
        self._owner.refused(status, message)


def _size_of(target: bytes, headers: dict[bytes, bytes]) -> int:
    return len(target) + sum(len(name) + len(value) for name, value in headers.items())
