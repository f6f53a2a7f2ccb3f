"""One client's connection: its requests answered one at a time and in their order, whatever is pipelined.

Stands between the socket, whose bytes `reading` makes requests of, and the handler. A client that goes away cancels its
request; one that is slow is ended by `look`, which the server calls every second.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import NamedTuple, cast

from modelmq.http.crowd import Crowd, most_with_refused
from modelmq.http.exchange import Handler, HttpRequest, HttpResponse, Limits, head_of, json_error
from modelmq.http.reading import BODY, HEAD, IDLE, Reading

_LINGER_S = 5.0
"""How long the rest of a refused request is still read and dropped: a reset would destroy the answer on its way."""
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
        self._reading = Reading(self, shared)
        self._transport: asyncio.Transport = cast(asyncio.Transport, None)
        self._owes_continue = False
        self._task: asyncio.Task[None] | None = None
        self._held = 0
        self._queue: deque[_Taken] = deque()
        self._last: HttpResponse | None = None
        """The refusal that goes out behind everything that was asked before."""
        self._lingers = False
        self._write_paused = False
        self._unread_since_s = 0.0
        """When bytes began to wait for the client, or so many that writing was paused."""
        self._unsent = 0
        """Bytes of answers that waited for the client when writing was paused."""

    @property
    def idle(self) -> bool:
        """Nothing is asked and nothing is owed."""
        return self._reading.phase == IDLE and self._task is None

    @property
    def useless_since_s(self) -> float | None:
        """Since when nothing has come that asks for anything: it is idle, slow with a head, or refused.

        Whoever has an answer to read is of use until it has had its time for that.
        """
        if self._transport.is_closing():
            return None
        if self._lingers:
            return self._reading.since_s
        if self._reading.phase == BODY or self._task is not None or self._write_paused:
            return None
        unread = self._transport.get_write_buffer_size()
        return self._unread_since_s + self._shared.limits.stall_s if unread else self._reading.since_s

    @property
    def unread_since_s(self) -> float | None:
        """Since when its client has not read what was written, which may keep it from closing."""
        return self._unread_since_s if self._unsent else None

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:  # noqa: D102
        shared = self._shared
        self._transport = cast(asyncio.Transport, transport)
        self._reading.since_s = shared.loop.time()
        most = shared.limits.max_connections
        full = len(shared.connections) >= most and not shared.crowd.make_room(self._reading.since_s)
        shared.connections.add(self)
        if full and len(shared.connections) > most_with_refused(most):
            self._transport.abort()  # even to refuse is too much now
        elif full:
            self._refuse(503, "There are too many connections; try again later.")

    def data_received(self, data: bytes) -> None:  # noqa: D102
        self._reading.feed(data)

    def eof_received(self) -> None:  # noqa: D102
        self.close()  # which the transport does too, and tells nobody when

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002, D102
        shared = self._shared
        self._reading.stop()
        shared.connections.discard(self)
        shared.buffered_bytes -= self._held + sum(len(each.request.body) for each in self._queue)
        self._held = 0
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

    # What its requests are, or why nothing more is read

    def asked(self, request: HttpRequest, *, keep_alive: bool, old: bool) -> None:  # noqa: D102
        taken = _Taken(request, keep_alive, old)
        self._owes_continue = False
        if self._task is None and not self._write_paused:
            self._start(taken)
            return
        self._queue.append(taken)
        self._transport.pause_reading()
        if len(self._queue) > self._shared.limits.max_pipelined:
            self._refuse(429, "Too many requests are pipelined on this connection.")

    def expects_continue(self) -> None:  # noqa: D102
        if self._task is None:
            self._send(_CONTINUE)
        else:
            self._owes_continue = True

    def refused(self, status: int, message: str) -> None:
        """The connection ends with this answer, behind those that are owed."""
        headers = (("retry-after", "1"),) if status in (429, 503) else ()
        self._last = json_error(status, message, *headers, close=True)
        if self._task is None:
            self._go_on()

    def _refuse(self, status: int, message: str) -> None:
        self._reading.stop()
        self.refused(status, message)

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
        self._reading.since_s = self._shared.loop.time()
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

    def _end(self) -> None:
        """Behind a complete request at once; where more may be on its way, after it was dropped for a while."""
        if self._transport.is_closing():
            return
        if self._reading.phase == IDLE and not self._reading.deaf and not self._queue:
            self.close()
            return
        self._reading.stop()
        self._lingers = True
        self._reading.since_s = self._shared.loop.time()
        self._transport.resume_reading()
        if self._transport.can_write_eof():
            self._transport.write_eof()

    def look(self, now_s: float) -> None:
        """End what has taken too long."""
        reading, limits = self._reading, self._shared.limits
        silent_s = now_s - reading.since_s
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
        elif reading.phase == IDLE:
            if silent_s > limits.idle_s:
                self.close()
        elif silent_s > (limits.head_s if reading.phase == HEAD else limits.stall_s) or (
            reading.phase == BODY
            and now_s - reading.body_since_s > min(limits.body_s, limits.stall_s + reading.size / limits.min_body_rate)
        ):
            self._refuse(408, "The request did not come to its end in time.")

    def abort(self) -> None:
        """At once, with all that was written."""
        self._all_sent()
        self._transport.abort()

    def close(self) -> None:
        """At once; what was written still goes out, if it is read before `look` loses patience."""
        if not self._lingers and not self._transport.is_closing():
            self._reading.since_s = self._shared.loop.time()
        self._transport.close()

    def give_up(self) -> None:
        """The request in hand is cancelled, and answered that the service stops."""
        if self._task is not None:
            self._task.cancel()
        else:
            self.close()
