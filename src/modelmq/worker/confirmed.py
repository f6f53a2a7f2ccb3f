"""Publishes what must be known to be stored before the message it answers is acked: dead letters, durable replies.

A channel in confirm mode for each exchange, beside the lanes' channels, opened again when the broker closes it: one
that is missing or forbidden costs a channel with all that waits on it. What a queue owes too many confirms for waits,
so that a queue without a leader leaves the connection to others (see `window`); and where a queue refuses everything,
another channel is tried (see `refusals`). Knows no models.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from modelmq.amqp import Channel, Connection, Properties, Settled
from modelmq.client.refusals import Refusals
from modelmq.client.window import LIMIT, Windows
from modelmq.errors import BrokerError
from modelmq.worker.standing import keep

Then = Callable[[Settled], None]
LAST_CONFIRMS_S = 10.0
"""For what a channel still waits for when another has taken its place."""


class _Message(NamedTuple):
    queue: str
    exchange: str
    routing_key: str
    properties: Properties
    body: bytes
    then: Then


class ConfirmedPublisher:
    """One confirm channel for each of these exchanges, over the life of many connections."""

    def __init__(self, *exchanges: str) -> None:
        self._channels: dict[str, Channel | None] = dict.fromkeys(exchanges)
        self._refused: dict[str, asyncio.Event] = {exchange: asyncio.Event() for exchange in exchanges}
        """Another channel may be taken from where this one is not."""
        self._windows = Windows(LIMIT, 0.0)
        self._refusals = Refusals()
        self._held: dict[str, deque[_Message]] = {}
        """By the queue they go to. Bounded by what the lanes may hold."""

    async def run(self, connection: Connection, stopping: asyncio.Event) -> None:
        """Keep the channels open while this connection lives."""
        await asyncio.gather(*(self._keep(exchange, connection, stopping) for exchange in self._channels))

    async def _keep(self, exchange: str, connection: Connection, stopping: asyncio.Event) -> None:
        async def attempt() -> None:
            channel = await connection.channel()
            await channel.confirm_select()
            if stopping.is_set():  # another connection has taken over meanwhile, and its channel is the one to use
                await channel.close()
                return
            before, self._channels[exchange] = self._channels[exchange], channel
            if before is not None:
                asyncio.get_running_loop().call_later(LAST_CONFIRMS_S, before.leave)
            await _either(channel.closed, self._refused[exchange])

        await keep(attempt, lambda error, retry_in_s: None, stopping)  # noqa: ARG005 - each publish reports itself

    def publish(
        self, queue: str, exchange: str, routing_key: str, properties: Properties, body: bytes, then: Then
    ) -> None:
        """Publish as mandatory; `then` is called exactly once, with LOST when there is no channel.

        `queue` is where it ends, which the caller knows: many keys may lead to one queue.
        """
        self._send(_Message(queue, exchange, routing_key, properties, body, then))

    def _send(self, message: _Message) -> None:
        queue, channel = message.queue, self._channels[message.exchange]
        if channel is None:
            message.then(Settled.LOST)
        elif not self._windows.open(queue):
            self._held.setdefault(queue, deque()).append(message)
        else:
            try:
                channel.publish(*message[1:5], mandatory=True, on_settled=partial(self._on_settled, channel, message))
            except (BrokerError, ValueError):
                # ValueError: properties that came in a frame of their own may need more than one now. What cannot be
                # stored is given back, and the broker's delivery limit decides in the end.
                message.then(Settled.LOST)
                return
            self._windows.sent(queue, 0.0)

    def _on_settled(self, channel: Channel, message: _Message, settled: Settled) -> None:
        """Tell it, and go on with what waited for that; over a channel that has ended all of it is lost as well."""
        queue, exchange = message.queue, message.exchange
        self._windows.settled(queue, 0.0)
        if settled is Settled.ACKED:
            self._refusals.taken(queue)
        elif settled is Settled.NACKED and channel is self._channels[exchange] and self._due(queue):
            self._refused[exchange].set()
        message.then(settled)
        held = self._held.get(queue)
        while held and self._windows.open(queue):
            self._send(held.popleft())
        if held is not None and not held:
            self._held.pop(queue, None)

    def _due(self, queue: str) -> bool:
        return self._refusals.refused(queue, asyncio.get_running_loop().time())


async def _either(closed: asyncio.Future[BrokerError | None], refused: asyncio.Event) -> None:
    """Until one of them has happened; the second is cleared."""
    hears: asyncio.Future[Any] = asyncio.create_task(refused.wait())
    ends: list[asyncio.Future[Any]] = [closed, hears]
    try:
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    finally:
        hears.cancel()
        refused.clear()
