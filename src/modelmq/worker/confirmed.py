"""Publishes what must be known to be stored before the message it answers is acked: dead letters, durable replies.

A channel in confirm mode beside the lanes' channels, opened again when the broker closes it. Knows no models.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from modelmq.amqp import Channel, Connection, Properties, Settled
from modelmq.errors import BrokerError
from modelmq.worker.standing import keep

Then = Callable[[Settled], None]


class ConfirmedPublisher:
    """One confirm channel over the life of many connections."""

    def __init__(self) -> None:
        self._channel: Channel | None = None

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
        if self._channel is None:
            then(Settled.LOST)
            return
        try:
            self._channel.publish(exchange, routing_key, properties, body, mandatory=True, on_settled=then)
        except (BrokerError, ValueError):
            # ValueError: properties that came in a frame of their own may need more than one now. What cannot be stored
            # is given back, and the broker's delivery limit decides in the end.
            then(Settled.LOST)
