"""Publishes what must be known to be stored before the message it answers is acked: dead letters, durable replies.

A channel in confirm mode beside the lanes' channels, opened again when the broker closes it. What a queue owes too many
confirms for waits, so that a queue without a leader leaves the connection to others (see `window`). Knows no models.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from modelmq.amqp import Channel, Connection, Properties, Settled
from modelmq.client.window import LIMIT, Windows
from modelmq.errors import BrokerError
from modelmq.worker.standing import keep

Then = Callable[[Settled], None]


class _Message(NamedTuple):
    exchange: str
    routing_key: str
    properties: Properties
    body: bytes
    then: Then

    @property
    def key(self) -> str:
        """What stands for the queue it goes to."""
        return f"{self.exchange} {self.routing_key}"


class ConfirmedPublisher:
    """One confirm channel over the life of many connections."""

    def __init__(self) -> None:
        self._channel: Channel | None = None
        self._windows = Windows(LIMIT, 0.0)
        self._held: dict[str, deque[_Message]] = {}
        """By the queue they go to. Bounded by what the lanes may hold."""

    async def run(self, connection: Connection, stopping: asyncio.Event) -> None:
        """Keep the channel open while this connection lives."""

        async def attempt() -> None:
            channel = await connection.channel()
            await channel.confirm_select()
            self._channel = channel
            await asyncio.shield(channel.closed)

        await keep(attempt, lambda error, retry_in_s: None, stopping)  # noqa: ARG005 - each publish reports itself

    def publish(self, exchange: str, routing_key: str, properties: Properties, body: bytes, then: Then) -> None:
        """Publish as mandatory; `then` is called exactly once, with LOST when there is no channel."""
        self._send(_Message(exchange, routing_key, properties, body, then))

    def _send(self, message: _Message) -> None:
        key = message.key
        if self._channel is None:
            message.then(Settled.LOST)
        elif not self._windows.open(key):
            self._held.setdefault(key, deque()).append(message)
        else:
            try:
                self._channel.publish(*message[:4], mandatory=True, on_settled=partial(self._on_settled, message))
            except (BrokerError, ValueError):
                # ValueError: properties that came in a frame of their own may need more than one now. What cannot be
                # stored is given back, and the broker's delivery limit decides in the end.
                message.then(Settled.LOST)
                return
            self._windows.sent(key, 0.0)

    def _on_settled(self, message: _Message, settled: Settled) -> None:
        """Tell it, and go on with what waited for that; over a channel that has ended all of it is lost as well."""
        key = message.key
        self._windows.settled(key, 0.0)
        message.then(settled)
        held = self._held.get(key)
        while held and self._windows.open(key):
            self._send(held.popleft())
        if held is not None and not held:
            self._held.pop(key, None)
