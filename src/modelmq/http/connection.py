"""One client's connection: requests out of bytes, one answered at a time and in their order, whatever is pipelined.

Stands between the socket and the handler. A request that is too large is refused before it is read; a client that
goes away cancels its request; one that is slow is ended by `look`, which the server calls every second.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import NamedTuple, cast

import httptools

from modelmq.http.crowd import Crowd, most_with_refused
from modelmq.http.exchange import Handler, HttpRequest, HttpResponse, Limits, head_of, json_error

_LINGER_S = 5.0
"""How long the rest of a refused request is still read and dropped: a reset would destroy the answer on its way."""
_IDLE, _HEAD, _BODY = range(3)
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Shared:
    """What all connections of one server have in common."""

    def __init__(self, handler: Handler, limits: Limits) -> None:
        self.handler = handler
        self.limits = limits
        self.loop = asyncio.get_running_loop()
        self.connections: set[Connection] = set()
        self.crowd = Crowd(self.connections)
        self.buffered_bytes = 0
        self.unsent_bytes = 0
        self.draining = False
        self.date = ""
        self.left = asyncio.Event()
        """Set whenever a connection has ended."""


class _Taken(NamedTuple):
    request: HttpRequest
    keep_alive: bool
    old: bool
    """HTTP/1.0: keeping the connection must be said."""


class Connection(asyncio.Protocol):
    """Made by the server for each client; asyncio and the parser call it."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport = cast(asyncio.Transport, None)
        self._phase = _IDLE
        self._since_s = 0.0
        """When the connection was closed or the head began, else when a body last grew or the client was answered."""
        self._messages = 0
        """How many have begun."""
        self._body_since_s = 0.0
        self._head_bytes = 0
        """Of the pieces since the message began, or since its body last grew, that brought only head or framing."""
        self._piece_bytes = 0
        self._split = False
        """The head began in an earlier piece."""
        self._target = b""
        self._headers: dict[bytes, bytes] = {}
        self._body: bytes | bytearray = b""
        self._size = 0
        self._owes_continue = False
        self._task: asyncio.Task[None] | None = None
        self._held = 0
        self._queue: deque[_Taken] = deque()
        self._last: HttpResponse | None = None
        """The refusal that goes out behind everything that was asked before."""
        self._deaf = False
        """Nothing that still comes is read."""
        self._lingers = False
        self._write_paused = False
        self._unread_since_s = 0.0
        """When bytes began to wait for the client, or so many that writing was paused."""
        self._unsent = 0
        """Bytes of answers that waited for the client when writing was paused."""

    @property
    def idle(self) -> bool:
        """Nothing is asked and nothing is owed."""
        return self._phase == _IDLE and self._task is None

    @property
    def useless_since_s(self) -> float | None:
        """Since when nothing has come that asks for anything: it is idle, slow with a head, or refused.

        Whoever has an answer to read is of use until it has had its time for that.
        """
        if self._transport.is_closing():
            return None
        if self._lingers:
            return self._since_s
        if self._phase == _BODY or self._task is not None or self._write_paused:
            return None
        unread = self._transport.get_write_buffer_size()
        return self._unread_since_s + self._shared.limits.stall_s if unread else self._since_s

    @property
    def unread_since_s(self) -> float | None:
        """Since when its client has not read what was written, which may keep it from closing."""
        return self._unread_since_s if self._unsent else None

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:  # noqa: D102
        shared = self._shared
        self._transport = cast(asyncio.Transport, transport)
        self._since_s = shared.loop.time()
        most = shared.limits.max_connections
        full = len(shared.connections) >= most and not shared.crowd.make_room(self._since_s)
        shared.connections.add(self)
        if full and len(shared.connections) > most_with_refused(most):
            self._transport.abort()  # even to refuse is too much now
        elif full:
            self._refuse(503, "There are too many connections; try again later.")

    def data_received(self, data: bytes) -> None:  # noqa: D102
        if self._deaf:
            return
        before = self._phase, self._messages, self._size
        if self._phase == _BODY:  # blank lines between two requests ask for nothing
            self._since_s = self._shared.loop.time()
        self._piece_bytes = len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # What was asked is answered in HTTP/1.1; another protocol is not spoken.
            self._deaf = True
        except httptools.HttpParserError:
            if not self._deaf:
                self._refuse(400, "This is not a valid HTTP/1.1 request.")
        if self._phase != _IDLE and not self._deaf:
            self._look_at_piece(len(data), *before)

    def eof_received(self) -> None:  # noqa: D102
        self.close()  # which the transport does too, and tells nobody when

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002, D102
        shared = self._shared
        self._deaf = True
        shared.connections.discard(self)
        shared.buffered_bytes -= self._size + self._held + sum(len(each.request.body) for each in self._queue)
        self._size = self._held = 0
        self._queue.clear()
        self._all_sent()
        if self._task is not None:
            self._task.cancel()
        shared.left.set()

    def pause_writing(self) -> None:  # noqa: D102
        shared = self._shared
        self._write_paused = True
        self._unread_since_s = shared.loop.time()
        self._unsent = self._transport.get_write_buffer_size()
        shared.unsent_bytes += self._unsent
        if shared.unsent_bytes > shared.limits.max_unsent_bytes:
            shared.crowd.drop_slowest_reader()

    def resume_writing(self) -> None:  # noqa: D102
        self._write_paused = False
        self._all_sent()
        if self._task is None:
            self._go_on()

    # What the parser calls

    def on_message_begin(self) -> None:  # noqa: D102
        self._phase = _HEAD
        self._since_s = self._shared.loop.time()
        self._messages += 1
        self._head_bytes = 0
        self._split = False
        self._target = b""
        self._headers = {}

    def on_url(self, url: bytes) -> None:  # noqa: D102
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:  # noqa: D102
        if self._phase == _HEAD:  # else a trailer, which must not pass for a header
            self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:  # noqa: D102
        self._phase = _BODY
        if self._deaf:
            return
        limit = self._shared.limits.max_head_bytes
        if len(self._headers) > self._shared.limits.max_headers:
            self._refuse(431, f"The request has more than {self._shared.limits.max_headers} headers.")
            return
        if (self._split or self._piece_bytes > limit) and _size_of(self._target, self._headers) > limit:
            self._head_too_large()
            return
        declared = self._headers.get(b"content-length")
        if declared is not None and int(declared) > self._shared.limits.max_body_bytes:
            self._too_large(f"has {int(declared)} bytes")
        elif b"expect" in self._headers and self._headers[b"expect"].lower() == b"100-continue":
            if self._task is None:
                self._send(_CONTINUE)
            else:
                self._owes_continue = True

    def on_body(self, body: bytes) -> None:  # noqa: D102
        if self._deaf:
            return
        shared = self._shared
        if not self._size:
            self._body = body
        else:
            if type(self._body) is bytes:  # pieces in a list would cost many times their size if they are small
                self._body = bytearray(self._body)
            self._body += body
        self._size += len(body)
        shared.buffered_bytes += len(body)
        if self._size > shared.limits.max_body_bytes:
            self._too_large("is too large")
        elif shared.buffered_bytes > shared.limits.max_buffered_bytes:
            self._refuse(503, "Too many bytes of requests are held; try again later.")

    def on_message_complete(self) -> None:  # noqa: D102
        if self._deaf:
            return
        parser, version = self._parser, self._parser.get_http_version()
        if version not in ("1.1", "1.0"):
            self._refuse(505, "Only HTTP/1.1 and HTTP/1.0 are spoken here.")
            return
        request = HttpRequest(parser.get_method().decode("latin-1"), self._target, self._headers, bytes(self._body))
        keep_alive = parser.should_keep_alive() and not parser.should_upgrade()
        taken = _Taken(request, keep_alive, version == "1.0")
        self._body = b""
        self._size = 0
        self._phase = _IDLE
        self._owes_continue = False
        if self._task is None and not self._write_paused:
            self._start(taken)
            return
        self._queue.append(taken)
        self._transport.pause_reading()
        if len(self._queue) > self._shared.limits.max_pipelined:
            self._refuse(429, "Too many requests are pipelined on this connection.")

    # What is done

    def _start(self, taken: _Taken) -> None:
        self._held = len(taken.request.body)
        self._task = self._shared.loop.create_task(self._answer(taken))

    async def _answer(self, taken: _Taken) -> None:
        try:
            response = await self._shared.handler(taken.request)
        except asyncio.CancelledError:
            if self._transport.is_closing():
                raise
            response = json_error(503, "The service is stopping.", ("retry-after", "1"), close=True)
        except Exception as error:
            self._shared.loop.call_exception_handler({"message": "A request's handler failed.", "exception": error})
            response = json_error(500, "The service failed to answer this request; its log says why.")
        self._task = None
        if self._transport.is_closing():
            return
        self._shared.buffered_bytes -= self._held
        self._held = 0
        self._since_s = self._shared.loop.time()
        leaving = self._shared.draining and not self._queue
        keep_alive = taken.keep_alive and not response.close and not leaving
        self._write(response, taken, keep_alive=keep_alive)
        if keep_alive:
            if self._queue or self._last is not None or self._owes_continue:
                self._go_on()
        else:
            self._end()

    def _write(self, response: HttpResponse, taken: _Taken | None, *, keep_alive: bool) -> None:
        connection = "" if keep_alive else "close"
        if keep_alive and taken is not None and taken.old:
            connection = "keep-alive"
        head = head_of(response, self._shared.date, connection)
        # One write: two would be two packets.
        self._send(head if taken is not None and taken.request.method == "HEAD" else head + response.body)

    def _send(self, data: bytes) -> None:
        if not self._transport.get_write_buffer_size():
            self._unread_since_s = self._shared.loop.time()
        self._transport.write(data)

    def _go_on(self) -> None:
        """Whatever is next on this connection."""
        if self._write_paused or self._transport.is_closing():
            return
        if self._queue:
            self._start(self._queue.popleft())
        elif self._last is not None:
            self._write(self._last, None, keep_alive=False)
            self._end()
        elif self._owes_continue:
            self._owes_continue = False
            self._send(_CONTINUE)
        if not self._queue:
            self._transport.resume_reading()

    def _all_sent(self) -> None:
        self._shared.unsent_bytes -= self._unsent
        self._unsent = 0

    def _look_at_piece(self, piece_bytes: int, phase: int, messages: int, size: int) -> None:
        """Behind a piece that did not end the message; given is what was the case before it."""
        same = messages == self._messages
        self._split = self._phase == _HEAD
        if same and (phase == _HEAD == self._phase or (phase == _BODY and size == self._size)):
            # Of a body only lines between chunks, or trailers, which the parser holds until they end.
            self._head_bytes += piece_bytes
            if self._head_bytes > self._shared.limits.max_head_bytes:
                self._head_too_large()
            return
        self._head_bytes = 0
        if not same or phase == _HEAD:
            self._body_since_s = self._shared.loop.time()

    def _head_too_large(self) -> None:
        self._refuse(431, f"The request's head is larger than {self._shared.limits.max_head_bytes} bytes.")

    def _too_large(self, what: str) -> None:
        limit = self._shared.limits.max_body_bytes
        self._refuse(413, f"The request's body {what}; the limit is {limit} bytes.")

    def _refuse(self, status: int, message: str) -> None:
        """The connection ends with this answer, behind those that are owed."""
        self._deaf = True
        self._shared.buffered_bytes -= self._size
        self._size = 0
        self._body = b""
        headers = (("retry-after", "1"),) if status in (429, 503) else ()
        self._last = json_error(status, message, *headers, close=True)
        if self._task is None:
            self._go_on()

    def _end(self) -> None:
        """Behind a complete request at once; where more may be on its way, after it was dropped for a while."""
        if self._transport.is_closing():
            return
        if self._phase == _IDLE and not self._deaf and not self._queue:
            self.close()
            return
        self._deaf = True
        self._lingers = True
        self._since_s = self._shared.loop.time()
        self._transport.resume_reading()
        if self._transport.can_write_eof():
            self._transport.write_eof()

    def look(self, now_s: float) -> None:
        """End what has taken too long."""
        limits, silent_s = self._shared.limits, now_s - self._since_s
        if self._lingers:
            if silent_s > _LINGER_S:
                self.abort()
        elif self._write_paused:
            if now_s - self._unread_since_s > limits.stall_s:
                self.abort()
        elif self._transport.is_closing():  # which takes until all is sent
            if silent_s > limits.stall_s:
                self.abort()
        elif self._task is not None:
            return
        elif self._phase == _IDLE:
            if silent_s > limits.idle_s:
                self.close()
        elif silent_s > (limits.head_s if self._phase == _HEAD else limits.stall_s) or (
            self._phase == _BODY
            and now_s - self._body_since_s > min(limits.body_s, limits.stall_s + self._size / limits.min_body_rate)
        ):
            self._refuse(408, "The request did not come to its end in time.")

    def abort(self) -> None:
        """At once, with all that was written."""
        self._all_sent()
        self._transport.abort()

    def close(self) -> None:
        """At once; what was written still goes out, if it is read before `look` loses patience."""
        if not self._lingers and not self._transport.is_closing():
            self._since_s = self._shared.loop.time()
        self._transport.close()

    def give_up(self) -> None:
        """The request in hand is cancelled, and answered that the service stops."""
        if self._task is not None:
            self._task.cancel()
        else:
            self.close()


def _size_of(target: bytes, headers: dict[bytes, bytes]) -> int:
    return len(target) + sum(len(name) + len(value) for name, value in headers.items())
