"""Keeps one connection to RabbitMQ: connects, sets up, notices the end, connects again with growing, jittered delays.

Every service that talks to the broker has its own. What is consumed and published on a connection is its owner's
business, in `set_up`; nothing of an old connection lives on in a new one. When login or certificates change, a new
connection takes over first, and only then the one before is finished with, in `retire`, and closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

import msgspec

from modelmq.amqp.connecting import connect
from modelmq.amqp.connection import Connection
from modelmq.amqp.options import ConnectionOptions, Credentials
from modelmq.amqp.renewal import Renewal
from modelmq.errors import BrokerError, ConfigError, ConnectionLost
from modelmq.events import (
    BrokerBlocked,
    BrokerConnected,
    BrokerDisconnected,
    BrokerDrained,
    BrokerHandedOver,
    BrokerHandOverFailed,
    Emit,
)

FIRST_DELAY_S = 0.1
MAX_DELAY_S = 2.0
LOOK_EVERY_S = 1.0
"""Between two looks at the files that login and certificates come from."""

Use = Callable[[Connection], Awaitable[None]]


def backoff_s(failures: int, chance: float) -> float:
    """How long to wait after so many failures in a row; `chance` (0 to 1) spreads clients over half of it."""
    return float(min(MAX_DELAY_S, FIRST_DELAY_S * 2.0 ** min(failures, 16)) * (0.5 + chance / 2))


class _Made(NamedTuple):
    """What a connection is made of, as far as that can change while it is open."""

    credentials: Credentials
    certificates: bytes
    """A digest of the TLS files; empty without any."""


class _Up(NamedTuple):
    """An open connection that is set up, and what it is made of."""

    connection: Connection
    made: _Made


class Link:
    """One connection after another. `start`, then `up` to wait for the first; `stop` ends it for good.

    `set_up` prepares each new connection. It may be called while the one before is still up, to take over from it: if
    it then raises BrokerError, everything stays as it was. `retire` returns when nothing is left on the one before.
    """

    def __init__(
        self, options: ConnectionOptions, set_up: Use, *, service: str, emit: Emit, retire: Use | None = None
    ) -> None:
        self.connection: Connection | None = None
        """The connection that is up and set up, if there is one."""
        self.problem = "not connected yet"
        """Why there is none."""
        self._options = options
        self._set_up = set_up
        self._retire = retire
        self._service = service
        self._emit = emit
        self._is_up = asyncio.Event()
        self._was_up = False
        self._task: asyncio.Task[None] | None = None
        self._retiring: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to connect; returns at once."""
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    async def up(self) -> Connection:
        """Wait for a connection. Raises ConnectionLost after `stop`, and whatever bug ended the set-up."""
        while self.connection is None:
            task = self._task
            if task is None:
                raise ConnectionLost("This link to RabbitMQ is stopped.")
            waiting = asyncio.create_task(self._is_up.wait())
            try:
                await asyncio.wait([waiting, task], return_when=asyncio.FIRST_COMPLETED)
            finally:
                waiting.cancel()
            if task.done() and not task.cancelled():
                task.result()
        return self.connection

    async def stop(self) -> None:
        """Close the connection and make no other. Idempotent."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        retiring, self._retiring = self._retiring, None
        if retiring is not None:
            retiring.cancel()
            await asyncio.gather(retiring, return_exceptions=True)

    async def _run(self) -> None:
        failures = 0
        while True:
            try:
                reason = await self._live()
                failures = 0
            except (BrokerError, ConfigError) as error:
                reason = error.message
                failures += 1
            except Exception as error:
                # A bug in the set-up. At the first connection `up` raises it; later on nobody would look, and the
                # service would idle unnoticed: so it is told, and tried again.
                if not self._was_up:
                    raise
                reason = self._bug("set-up", error)
                failures += 1
            delay_s = backoff_s(failures, random.random())  # noqa: S311 - no secret
            self.problem = reason
            self._emit(BrokerDisconnected(self._service, reason, delay_s))
            await asyncio.sleep(delay_s)

    async def _live(self) -> str:
        """From connecting to the end of the connection; why it ended."""
        up = await self._open()
        self.connection = up.connection
        self._is_up.set()
        self._was_up = True
        self._emit(BrokerConnected(self._service, str(up.connection.endpoint)))
        renewal = Renewal(up.made)
        try:
            while not up.connection.closed.done():
                await asyncio.wait([up.connection.closed], timeout=LOOK_EVERY_S)
                if not up.connection.closed.done() and await self._is_stale(renewal):
                    fresh = await self._renewed(renewal)
                    if fresh is not None:
                        self._hand_over(up, fresh)
                        up, renewal = fresh, Renewal(fresh.made)
            ended = up.connection.closed.result()
            return ended.message if ended is not None else "closed"
        finally:
            self.connection = None
            self._is_up.clear()
            await up.connection.close()

    async def _open(self) -> _Up:
        """Connected and set up; closed again where the set-up fails."""
        made = await asyncio.to_thread(_made_of, self._options)
        endpoints = self._options.endpoints
        shuffled = tuple(random.sample(endpoints, len(endpoints)))  # so that many services spread over the nodes
        options = msgspec.structs.replace(self._options, endpoints=shuffled, credentials=lambda: made.credentials)
        connection = await connect(options, on_blocked=self._on_blocked)
        try:
            await self._set_up(connection)
        except BaseException:
            await connection.close()
            raise
        return _Up(connection, made)

    async def _is_stale(self, renewal: Renewal) -> bool:
        """Whether the connection is to be replaced now. One after the other: not while one is still finished with."""
        if self._retiring is not None and not self._retiring.done():
            return False
        now = asyncio.get_running_loop().time()
        try:
            found = await asyncio.to_thread(_made_of, self._options)
        except ConfigError as error:
            if renewal.look(error.message, now, usable=False) == "tell":
                self._emit(BrokerHandOverFailed(self._service, error.message, LOOK_EVERY_S))
            return False
        return renewal.look(found, now) == "renew"

    async def _renewed(self, renewal: Renewal) -> _Up | None:
        """A connection that has taken over; None where that cannot be had now, and the one there is must do."""
        try:
            return await self._open()
        except (BrokerError, ConfigError) as error:
            reason = error.message
        except Exception as error:
            reason = self._bug("hand-over", error)
        delay_s = renewal.failed(asyncio.get_running_loop().time(), random.random())  # noqa: S311 - no secret
        self._emit(BrokerHandOverFailed(self._service, reason, delay_s))
        return None

    def _hand_over(self, before: _Up, fresh: _Up) -> None:
        self.connection = fresh.connection
        user = fresh.made.credentials.username
        self._emit(BrokerHandedOver(self._service, str(fresh.connection.endpoint), user))
        self._retiring = asyncio.create_task(self._finish_with(before.connection, before.made.credentials.username))

    async def _finish_with(self, connection: Connection, user: str) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            if self._retire is not None:
                await self._retire(connection)
        except Exception as error:
            self._bug("retirement", error)
        finally:
            await connection.close()
        self._emit(BrokerDrained(self._service, user, loop.time() - began))

    def _bug(self, where: str, error: Exception) -> str:
        """Told to the loop, as nobody else would hear of it; the same in words."""
        asyncio.get_running_loop().call_exception_handler(
            {"message": f"The {where} of the {self._service}'s connection failed", "exception": error}
        )
        return f"its {where} failed: {error!r}"

    def _on_blocked(self, blocked: bool, reason: str) -> None:
        self._emit(BrokerBlocked(self._service, blocked, reason))


def _made_of(options: ConnectionOptions) -> _Made:
    """As it is now. Raises ConfigError for what cannot be read."""
    files = {
        getattr(endpoint.tls, setting): setting
        for endpoint in options.endpoints
        if endpoint.tls is not None
        for setting in ("ca_file", "cert_file", "key_file")
        if getattr(endpoint.tls, setting)
    }
    digest = hashlib.sha256()
    for path, setting in files.items():
        try:
            digest.update(hashlib.sha256(Path(path).read_bytes()).digest())
        except OSError as error:
            raise ConfigError(f"{setting}: the file {path} cannot be read: {error.strerror}.") from error
    return _Made(options.credentials(), digest.digest() if files else b"")
