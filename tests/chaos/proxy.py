"""A TCP proxy for one link, which can be cut, reset, stalled (half open) and slowed while it is used.

Stands between the services and the broker, and between callers and a gateway. Knows nothing of what passes, and counts
the connections that ended.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from contextlib import suppress

_SLOW_TICK_S = 0.1
_CONNECT_S = 2.0


class Link:
    """Listens on a port of its own for each target, once started, and passes on to it."""

    def __init__(self, name: str, *targets: tuple[str, int]) -> None:
        self.name = name
        self.ports = [0] * len(targets)
        self.ended = 0
        """Connections that have ended, for whatever reason."""
        self.bytes_per_s = 0
        """Of each direction of each connection while slowed; 0: as fast as it goes."""
        self.pairs: set[_Pair] = set()
        self._targets = targets
        self._servers: list[asyncio.Server] = []

    async def listen(self) -> None:
        """Take connections, on the ports of before where there were any."""
        if not self._servers:
            for number, target in enumerate(self._targets):
                self._servers.append(await self._listen(number, target))

    async def refuse(self) -> None:
        """Take no more connections; those that are there stay."""
        servers, self._servers = self._servers, []
        for server in servers:
            server.close()

    async def _listen(self, number: int, target: tuple[str, int]) -> asyncio.Server:
        loop, port = asyncio.get_running_loop(), self.ports[number]
        server = await loop.create_server(lambda: _Side(_Pair(self, target)), "127.0.0.1", port, backlog=512)
        self.ports[number] = server.sockets[0].getsockname()[1]
        return server

    def cut(self) -> int:
        """Close all connections in order; how many."""
        return self._each(_Pair.close)

    def reset(self) -> int:
        """End all connections with RST, each in the middle of what is sent next, if that comes soon."""
        return self._each(_Pair.break_within)

    def stall(self) -> int:
        """Nothing passes over today's connections any more, and neither side is told; new ones are not concerned."""
        return self._each(_Pair.stall)

    def release(self) -> None:
        """The network forgets the stalled connections."""
        for pair in list(self.pairs):
            if pair.stalled:
                pair.abort()

    async def close(self) -> None:
        """No connections, no listener."""
        await self.refuse()
        self._each(_Pair.abort)

    def _each(self, act: Callable[[_Pair], None]) -> int:
        pairs = list(self.pairs)
        for pair in pairs:
            act(pair)
        return len(pairs)


class _Pair:
    """One connection: the side that was accepted, and the side that was made for it."""

    def __init__(self, link: Link, target: tuple[str, int]) -> None:
        self.link = link
        self.target = target
        self.sides: list[_Side] = []
        self.stalled = False
        self.breaking = False
        self._over = False
        self._connecting: asyncio.Task[None] | None = None

    def accepted(self) -> None:
        self.link.pairs.add(self)
        self._connecting = asyncio.create_task(self._connect())

    async def _connect(self) -> None:
        try:
            connecting = asyncio.get_running_loop().create_connection(lambda: _Side(self), *self.target)
            await asyncio.wait_for(connecting, _CONNECT_S)
        except (OSError, TimeoutError):
            self.abort()
            return
        if self._over:
            self.abort()
        else:
            self.sides[0].begin(self.sides[1])

    def other(self, side: _Side) -> _Side | None:
        return next((each for each in self.sides if each is not side), None)

    def close(self) -> None:
        self._finish(_Side.close)

    def abort(self) -> None:
        self._finish(_Side.reset)

    def break_within(self) -> None:
        self.breaking = True
        asyncio.get_running_loop().call_later(0.2, self.abort)

    def abort_soon(self) -> None:
        """Once the half that was just written has left; nothing follows it."""
        self.stall()
        asyncio.get_running_loop().call_later(0.01, self.abort)

    def stall(self) -> None:
        self.stalled = True
        for side in self.sides:
            side.pause()

    def _finish(self, how: Callable[[_Side], None]) -> None:
        for side in self.sides:
            how(side)
        if not self._over:
            self._over = True
            self.link.pairs.discard(self)
            self.link.ended += 1


class _Side(asyncio.Protocol):
    """One socket of a pair. What comes before the other is there waits in the kernel."""

    def __init__(self, pair: _Pair) -> None:
        self._pair = pair
        self._transport: asyncio.Transport | None = None
        self._held = bytearray()
        self._early = b""
        self._sending: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment] - uvloop's is no asyncio.Transport
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._pair.sides.append(self)
        if len(self._pair.sides) == 1:
            self.pause()
            self._pair.accepted()

    def data_received(self, data: bytes) -> None:
        pair, other = self._pair, self._pair.other(self)
        if pair.stalled:
            return
        if other is None or self._early:  # uvloop may deliver what came before reading was paused
            self._early += data
            return
        if pair.breaking:
            other.write(data[: len(data) // 2])
            pair.abort_soon()
            return
        other.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._pair.stalled:
            self._pair.close()

    def begin(self, other: _Side) -> None:
        """The other side is there."""
        early, self._early = self._early, b""
        if early:
            other.write(early)
        self.resume()

    def pause_writing(self) -> None:
        other = self._pair.other(self)
        if other is not None:
            other.pause()

    def resume_writing(self) -> None:
        other = self._pair.other(self)
        if other is not None and not self._pair.stalled:
            other.resume()

    def write(self, data: bytes) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        if not self._pair.link.bytes_per_s and not self._held:
            self._transport.write(data)
            return
        self._held += data
        if self._sending is None:
            self._sending = asyncio.create_task(self._send_slowly())

    async def _send_slowly(self) -> None:
        other = self._pair.other(self)
        while self._held and self._transport is not None and not self._transport.is_closing():
            share = int(self._pair.link.bytes_per_s * _SLOW_TICK_S) or len(self._held)
            if not self._pair.stalled:
                self._transport.write(bytes(self._held[:share]))
                del self._held[:share]
            if other is not None and not self._pair.stalled:
                (other.pause if len(self._held) > 65_536 else other.resume)()
            await asyncio.sleep(_SLOW_TICK_S)
        self._sending = None

    def pause(self) -> None:
        with suppress(RuntimeError):
            if self._transport is not None and not self._transport.is_closing():
                self._transport.pause_reading()

    def resume(self) -> None:
        with suppress(RuntimeError):
            if self._transport is not None and not self._transport.is_closing():
                self._transport.resume_reading()

    def close(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.close()

    def reset(self) -> None:
        if self._transport is not None:
            with suppress(OSError, ValueError):  # closed already
                sock = self._transport.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._transport.abort()
