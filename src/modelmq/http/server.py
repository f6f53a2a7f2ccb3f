"""Listens, looks after its connections once a second, and drains so that no request is broken off.

The shell around `connection`. Signals, logs and lifetime belong to the service.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import time

import msgspec

from modelmq.errors import ConfigError
from modelmq.http.connection import Connection, Shared
from modelmq.http.exchange import Handler, Limits

_LAST_CALL_S = 1.0
"""How long a kept-alive connection is still read from while draining: its next request may be on the way already."""
_CANCELLED_S = 1.0
_TICK_S = 1.0
_LOOK_S = 0.05
_OTHER_FILES = 128
"""Files of a service that are no client's connection."""


class HttpServer:
    """Made within a running loop. `start` once, then `drain` or `close`."""

    def __init__(self, handler: Handler, limits: Limits) -> None:
        self._shared = Shared(handler, limits)
        self._server: asyncio.Server | None = None
        self._listener: socket.socket | None = None
        self._ticking: asyncio.Task[None] | None = None

    @property
    def draining(self) -> bool:
        """Whether connections are being ended."""
        return self._shared.draining

    async def start(self, host: str, port: int, setting: str) -> int:
        """Listen; the port, which matters where `port` is 0. Raises ConfigError, naming `setting`."""
        self._shared.limits = _within_files(self._shared.limits)
        listener = _listen(host, port, setting, self._shared.limits.backlog)
        loop = asyncio.get_running_loop()
        self._listener = listener.dup()  # see _stop_accepting
        self._server = await loop.create_server(
            lambda: Connection(self._shared), sock=listener, backlog=self._shared.limits.backlog
        )
        self._shared.date = _date()
        self._ticking = asyncio.create_task(self._tick())
        return int(listener.getsockname()[1])

    async def drain(self, within_s: float, *, after_s: float = 0.0) -> None:
        """Accept no more, answer what is asked on open connections and close each behind its answer.

        What is not answered within the time is cancelled and answered 503. Connections are closed behind their answers
        at once, but new ones are accepted for `after_s` more, by whoever has not heard yet that this server is leaving.
        """
        loop, shared = asyncio.get_running_loop(), self._shared
        shared.draining = True
        await asyncio.sleep(after_s)
        await self._stop_accepting()
        await asyncio.sleep(_LOOK_S)  # who was accepted just now is known to us some turns of the loop later
        began = loop.time()
        while shared.connections and loop.time() - began < within_s:
            if loop.time() - began >= _LAST_CALL_S:
                for connection in [each for each in shared.connections if each.idle]:
                    connection.close()
            await self._until_left(_LOOK_S)
        for connection in list(shared.connections):
            connection.give_up()
        began = loop.time()
        while shared.connections and loop.time() - began < _CANCELLED_S:
            await self._until_left(_LOOK_S)
        await self.close()

    async def close(self) -> None:
        """At once. Idempotent."""
        await self._stop_accepting()
        for connection in list(self._shared.connections):
            connection.close()
        if self._ticking is not None:
            self._ticking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._ticking
            self._ticking = None
        await asyncio.sleep(0)  # so that the transports are gone when the loop ends

    async def _stop_accepting(self) -> None:
        """Refuse who comes from now on. Who came before and was not accepted yet would be reset, so is accepted."""
        server, self._server = self._server, None
        listener, self._listener = self._listener, None
        if server is not None:
            server.close()
        if listener is None:
            return
        loop, shared = asyncio.get_running_loop(), self._shared
        accepted: list[socket.socket] = []
        with listener, contextlib.suppress(OSError):
            while len(accepted) < shared.limits.backlog:
                accepted.append(listener.accept()[0])
        for client in accepted:
            client.setblocking(False)
            with contextlib.suppress(OSError):  # it went away again
                await loop.connect_accepted_socket(lambda: Connection(shared), client)

    async def _until_left(self, at_most_s: float) -> None:
        self._shared.left.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._shared.left.wait(), at_most_s)

    async def _tick(self) -> None:
        shared = self._shared
        while True:
            await asyncio.sleep(_TICK_S)
            shared.date = _date()
            now_s = shared.loop.time()
            for connection in list(shared.connections):
                connection.look(now_s)


def _within_files(limits: Limits) -> Limits:
    """Without a file for a connection none is accepted, and none to RabbitMQ can be made."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    possible = (files - _OTHER_FILES) * 8 // 9  # an eighth more, which are just being refused
    if files == resource.RLIM_INFINITY or limits.max_connections <= possible:
        return limits
    return msgspec.structs.replace(limits, max_connections=max(possible, 1))


def _date() -> str:
    return time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime())


def _listen(host: str, port: int, setting: str, backlog: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigError(f"{setting}: {host} is no address to listen on: {error.strerror}.") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(backlog)
    except OSError as error:
        listener.close()
        raise ConfigError(f"{setting}: {host}:{port} cannot be listened on: {error.strerror}.") from error
    listener.setblocking(False)
    return listener
