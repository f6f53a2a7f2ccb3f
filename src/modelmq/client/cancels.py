"""Tells the workers what nobody waits for any more, of the requests of one channel, over a channel of its own.

Who may not publish to the control exchange has the channel closed on which it tries; so that is never the one by which
requests and replies go. It is opened with the first cancel, and not again when RabbitMQ has closed it. Best effort:
what cannot be told now ends by its deadline.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque

from modelmq.amqp import Channel, Connection, Properties
from modelmq.client import request as said
from modelmq.client.address import ReplyAddress
from modelmq.errors import BrokerError
from modelmq.messages import CONTROL_EXCHANGE

MOST_WAITING = 10_000
"""Cancels that wait for the channel; the oldest are dropped."""
_LAST_S = 1.0
"""How long the end of a client waits for the last cancels to be written."""


class Cancels:
    """Of the requests sent by one channel, which are answered at `address`."""

    def __init__(self, connection: Connection, asking: Channel, address: ReplyAddress) -> None:
        self._connection = connection
        self._address = address
        self._own: Channel | None = None
        self._waiting: deque[Properties] = deque(maxlen=MOST_WAITING)
        self._sending: asyncio.Task[None] | None = None
        self._over = False
        asking.closed.add_done_callback(lambda _: self._end())

    def send(self, correlation_id: str, deadline_unix_s: float) -> None:
        """Withdraw a request. Never fails, never waits."""
        if self._over or self._connection.blocked:
            return
        self._waiting.append(said.cancel_of(correlation_id, deadline_unix_s))
        if self._sending is None:
            self._sending = asyncio.create_task(self._send())

    async def sent(self) -> None:
        """Wait a moment until what waits is written."""
        if self._sending is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._sending, _LAST_S)

    async def _send(self) -> None:
        try:
            own = self._own or await self._open()
            address = await self._address.everywhere()
            while self._waiting:
                if not self._connection.writable:
                    await self._connection.drain()
                    continue
                properties = self._waiting.popleft()
                properties.reply_to = address
                own.publish(CONTROL_EXCHANGE, "", properties, b"")
        except BrokerError:
            self._end()
        finally:
            self._sending = None

    async def _open(self) -> Channel:
        """Raises BrokerError."""
        own = self._own = await self._connection.channel()
        own.closed.add_done_callback(lambda _: self._end())
        if self._over:  # since it was asked for
            own.leave()
        return own

    def _end(self) -> None:
        self._over = True
        self._waiting.clear()
        if self._own is not None:
            self._own.leave()
