"""Keeps one connection to RabbitMQ: connects, sets up, notices the end, connects again with growing, jittered delays.

Every service that talks to the broker has its own. What is consumed and published on a connection is its owner's
business, in `set_up`; nothing of an old connection lives on in a new one.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable

import msgspec

from modelmq.amqp.connecting import connect
from modelmq.amqp.connection import Connection
from modelmq.amqp.options import ConnectionOptions
from modelmq.errors import BrokerError, ConfigError, ConnectionLost
from modelmq.events import BrokerBlocked, BrokerConnected, BrokerDisconnected, Emit

FIRST_DELAY_S = 0.1
MAX_DELAY_S = 2.0


def backoff_s(failures: int, chance: float) -> float:
    """How long to wait after so many failures in a row; `chance` (0 to 1) spreads clients over half of it."""
    return float(min(MAX_DELAY_S, FIRST_DELAY_S * 2.0 ** min(failures, 16)) * (0.5 + chance / 2))


class Link:
    """One connection after another. `start`, then `up` to wait for the first; `stop` ends it for good."""

    def __init__(
        self,
        options: ConnectionOptions,
        set_up: Callable[[Connection], Awaitable[None]],
        *,
        service: str,
        emit: Emit,
    ) -> None:
        self.connection: Connection | None = None
        """The connection that is up and set up, if there is one."""
        self.problem = "not connected yet"
        """Why there is none."""
        self._options = options
        self._set_up = set_up
        self._service = service
        self._emit = emit
        self._is_up = asyncio.Event()
        self._was_up = False
        self._task: asyncio.Task[None] | None = None

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
                asyncio.get_running_loop().call_exception_handler(
                    {"message": f"The set-up of the {self._service}'s connection failed", "exception": error}
                )
                reason = f"its set-up failed: {error!r}"
                failures += 1
            delay_s = backoff_s(failures, random.random())  # noqa: S311 - no secret
            self.problem = reason
            self._emit(BrokerDisconnected(self._service, reason, delay_s))
            await asyncio.sleep(delay_s)

    async def _live(self) -> str:
        """From connecting to the end of the connection; why it ended."""
        endpoints = self._options.endpoints
        shuffled = tuple(random.sample(endpoints, len(endpoints)))  # so that many services spread over the nodes
        options = msgspec.structs.replace(self._options, endpoints=shuffled)
        connection = await connect(options, on_blocked=self._on_blocked)
        try:
            await self._set_up(connection)
            self.connection = connection
            self._is_up.set()
            self._was_up = True
            self._emit(BrokerConnected(self._service, str(connection.endpoint)))
            ended = await asyncio.shield(connection.closed)
            return ended.message if ended is not None else "closed"
        finally:
            self.connection = None
            self._is_up.clear()
            await connection.close()

    def _on_blocked(self, blocked: bool, reason: str) -> None:
        self._emit(BrokerBlocked(self._service, blocked, reason))
