"""One open connection: the socket's protocol, its channels, heartbeats, alarms and its end.

Writes are gathered and leave once per turn of the event loop; reads become events that are handed to their channel in
order. Made by `connecting`. When it ends it stays ended: `link` makes another one.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import cast

from pamqp import commands

from modelmq.amqp import frames
from modelmq.amqp.channel import Channel
from modelmq.amqp.frames import Method
from modelmq.amqp.handshake import Handshake
from modelmq.amqp.options import ConnectionOptions, Credentials, Endpoint
from modelmq.amqp.wire import Called, Wire
from modelmq.errors import BrokerError, ChannelClosed, ConnectionLost, ProtocolViolation

OnBlocked = Callable[[bool, str], None]

_CLOSE_S = 5.0
_GOODBYE = 200
_TICKS_PER_HEARTBEAT = 2
_SILENT_TICKS = 2 * _TICKS_PER_HEARTBEAT
"""Two heartbeats without a byte, and the peer is dead."""


class Connection(asyncio.Protocol):
    """An AMQP connection. `closed` resolves when it has ended: to the reason, or to None after `close`."""

    def __init__(
        self, endpoint: Endpoint, options: ConnectionOptions, credentials: Credentials, on_blocked: OnBlocked | None
    ) -> None:
        loop = asyncio.get_running_loop()
        self.endpoint = endpoint
        self.closed: asyncio.Future[BrokerError | None] = loop.create_future()
        self._blocked = False
        self.opened: asyncio.Future[None] = loop.create_future()
        """For `connecting`: resolves when the login is through."""
        self._loop = loop
        self._on_blocked = on_blocked
        self._handshake = Handshake(options, credentials)
        self._wire = Wire(options.max_body_bytes)
        self._transport: asyncio.Transport | None = None
        self._channels: dict[int, Channel] = {}
        self._outgoing: list[bytes] = []
        self._resumed: asyncio.Future[None] | None = None
        self._heard = self._said = False
        self._silent_ticks = 0
        self._ticker: asyncio.TimerHandle | None = None
        self._reason: BrokerError | None = None
        self._closing = False

    @property
    def frame_max(self) -> int:
        """The largest frame, its overhead included."""
        return self._handshake.frame_max

    @property
    def blocked(self) -> bool:
        """The broker takes no publishes now, for want of memory or disk."""
        return self._blocked

    @property
    def writable(self) -> bool:
        """False while more is waiting to be written than the network takes."""
        return self._resumed is None

    async def drain(self) -> None:
        """Wait until the connection is writable. Raises ConnectionLost."""
        self.require_open()
        if self._outgoing:
            await asyncio.sleep(0)  # what is gathered leaves, and shows whether the network takes it
        while self._resumed is not None:
            await asyncio.shield(self._resumed)
        self.require_open()

    async def channel(self) -> Channel:
        """A new channel. Raises ConnectionLost, and ChannelClosed when all that were agreed on are in use."""
        self.require_open()
        number = next((n for n in range(1, self._handshake.channel_max + 1) if n not in self._channels), None)
        if number is None:
            raise ChannelClosed(f"All {self._handshake.channel_max} channels of the connection are in use.")
        channel = Channel(number, self)
        self._channels[number] = channel
        self._wire.open_channel(number)
        await channel.open()
        return channel

    async def close(self) -> None:
        """Say goodbye and end; channels end with it. Waits for what was written to leave. Idempotent."""
        if not self.closed.done() and not self._closing:
            self._closing = True
            self.send(frames.encode_method(commands.Connection.Close(_GOODBYE, "", 0, 0), 0))
        # Not wait_for: in Python 3.11 it takes a cancellation for the result that comes in the same turn of the loop.
        await asyncio.wait([self.closed], timeout=_CLOSE_S)
        self.abort()

    def abort(self) -> None:
        """End at once; what was not written is lost."""
        if self._transport is not None:
            self._transport.abort()

    def require_open(self) -> None:
        """Raises ConnectionLost when the connection has ended or is about to."""
        if self._reason is not None:
            raise _again(self._reason)
        if self._closing or self.closed.done():
            raise ConnectionLost(f"The connection to RabbitMQ at {self.endpoint} was closed.")

    def send(self, data: bytes) -> None:
        """For channels: write these bytes after all before them, at the end of this turn of the event loop."""
        if not self._outgoing:
            self._loop.call_soon(self.flush)
        self._outgoing.append(data)

    def flush(self) -> None:
        """For channels: write at once what would be written at the end of this turn."""
        outgoing = self._outgoing
        if outgoing and self._transport is not None:
            self._outgoing = []
            self._said = True
            if not self._transport.is_closing():
                self._transport.write(outgoing[0] if len(outgoing) == 1 else b"".join(outgoing))

    def release(self, number: int) -> None:
        """For channels: this one has ended, its number is free."""
        if self._channels.pop(number, None) is not None:
            self._wire.close_channel(number)

    # --- asyncio.Protocol ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is there; TLS is through."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(frames.PROTOCOL_HEADER)

    def data_received(self, data: bytes) -> None:
        """Bytes, cut anywhere."""
        self._heard = True
        try:
            for event in self._wire.receive(data):
                if type(event) is Called and event.channel == 0:
                    self._on_method(event.method)
                elif channel := self._channels.get(event.channel):
                    channel.receive(event)
            self._wire.check()
        except BrokerError as error:
            self._fail(error)

    def pause_writing(self) -> None:
        """More is waiting than the network takes."""
        if self._resumed is None:
            self._resumed = self._loop.create_future()

    def resume_writing(self) -> None:
        """The network has caught up."""
        if self._resumed is not None:
            self._resumed.set_result(None)
            self._resumed = None

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone, whoever ended it."""
        self.resume_writing()
        if self._ticker is not None:
            self._ticker.cancel()
        if self._reason is None and not self._closing:
            why = f": {exc}" if exc else " without a word"
            self._reason = ConnectionLost(f"The connection to RabbitMQ at {self.endpoint} ended{why}.")
        reason = self._reason or ConnectionLost(f"The connection to RabbitMQ at {self.endpoint} was closed.")
        for channel in list(self._channels.values()):
            channel.end(reason)
        self._channels.clear()
        if not self.opened.done():
            # What a broker says against a client certificate comes only now; `connecting` has the words for it.
            self.opened.set_exception(exc if isinstance(exc, ssl.SSLError) else _again(reason))
        self.closed.set_result(self._reason)

    # --- inside ---

    def _on_method(self, method: Method) -> None:
        if not self._handshake.done:
            for answer in self._handshake.receive(method):
                self.send(frames.encode_method(answer, 0))
            if isinstance(method, commands.Connection.Tune):
                self._wire.set_frame_max(self._handshake.frame_max)
                self._tick_every(self._handshake.heartbeat_s / _TICKS_PER_HEARTBEAT)
            if self._handshake.done and not self.opened.done():
                self.opened.set_result(None)
        elif isinstance(method, commands.Connection.Blocked | commands.Connection.Unblocked):
            reason = str(method.reason) if isinstance(method, commands.Connection.Blocked) else ""
            self._blocked = isinstance(method, commands.Connection.Blocked)
            if self._on_blocked is not None:
                self._on_blocked(self._blocked, reason)
        elif isinstance(method, commands.Connection.Close):
            self._on_close(method)
        elif isinstance(method, commands.Connection.CloseOk) and self._closing:
            self._end_transport()
        else:
            raise ProtocolViolation(f"The broker sent {method.name} on channel 0, where it has no place.")

    def _on_close(self, close: commands.Connection.Close) -> None:
        code, text = int(close.reply_code or 0), close.reply_text
        self._reason = self._reason or ConnectionLost(
            f"RabbitMQ at {self.endpoint} closed the connection: {code} {text}.", reply_code=code
        )
        self.send(frames.encode_method(commands.Connection.CloseOk(), 0))
        self._end_transport()

    def _end_transport(self) -> None:
        self.flush()
        if self._transport is not None:
            self._transport.close()

    def _fail(self, error: BrokerError) -> None:
        """The peer broke the rules, or refused us: there is nothing more to say to it."""
        self._reason = self._reason or error
        self.abort()

    def _tick_every(self, interval_s: float) -> None:
        if interval_s > 0:
            self._ticker = self._loop.call_later(interval_s, self._tick, interval_s)

    def _tick(self, interval_s: float) -> None:
        """Twice per heartbeat: speak when nothing was said, listen for a sign of life."""
        self._silent_ticks = 0 if self._heard else self._silent_ticks + 1
        if self._silent_ticks >= _SILENT_TICKS:
            silent_s = interval_s * self._silent_ticks
            self._fail(ConnectionLost(f"RabbitMQ at {self.endpoint} was silent for {silent_s:g} s."))
            return
        if not self._said:
            self.send(frames.heartbeat())
            self.flush()
        self._heard = self._said = False
        self._ticker = self._loop.call_later(interval_s, self._tick, interval_s)


def _again(error: BrokerError) -> BrokerError:
    """The same error as a new object: one that is raised in many places would gather all their tracebacks."""
    return type(error)(error.message, reply_code=error.reply_code)
