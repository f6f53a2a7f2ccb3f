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
from typing import NamedTuple

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


class _Way:
    """To one exchange: the channel, when it is over, and whether another may be taken from where it is not."""

    __slots__ = ("channel", "over", "refusals")

    def __init__(self) -> None:
        self.channel: Channel | None = None
        self.over = asyncio.Event()
        self.refusals = Refusals()


class ConfirmedPublisher:
    """One confirm channel for each of these exchanges, over the life of many connections."""

    def __init__(self, *exchanges: str) -> None:
        self._ways = {exchange: _Way() for exchange in exchanges}
        self._windows = Windows(LIMIT, 0.0)
        self._held: dict[str, deque[_Message]] = {}
        """By the queue they go to. Bounded by what the lanes may hold."""

    async def run(self, connection: Connection, stopping: asyncio.Event) -> None:
        """Keep the channels open while this connection lives."""
        await asyncio.gather(*(self._keep(way, connection, stopping) for way in self._ways.values()))

    async def _keep(self, way: _Way, connection: Connection, stopping: asyncio.Event) -> None:
        async def attempt() -> None:
            channel = await connection.channel()
            await channel.confirm_select()
            if stopping.is_set():  # another connection has taken over meanwhile, and its channel is the one to use
                await channel.close()
                return
            before, over = way.channel, asyncio.Event()
            way.channel, way.over = channel, over
            way.refusals.replaced()
            channel.closed.add_done_callback(lambda _: over.set())
            if before is not None:
                asyncio.get_running_loop().call_later(LAST_CONFIRMS_S, before.leave)
            await over.wait()

        await keep(attempt, lambda error, retry_in_s: None, stopping)  # noqa: ARG005 - each publish reports itself

    def publish(
        self, queue: str, exchange: str, routing_key: str, properties: Properties, body: bytes, then: Then
    ) -> None:
        """Publish as mandatory; `then` is called exactly once, with LOST when there is no channel.

        `queue` is where it ends, which the caller knows: many keys may lead to one queue.
        """
        self._send(_Message(queue, exchange, routing_key, properties, body, then))

    def _send(self, message: _Message) -> None:
        queue, channel = message.queue, self._ways[message.exchange].channel
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
        queue, way = message.queue, self._ways[message.exchange]
        self._windows.settled(queue, 0.0)
        if settled is Settled.ACKED:
            way.refusals.taken(queue)
        elif settled is Settled.NACKED and channel is way.channel and way.refusals.refused(queue, _now_s()):
            way.over.set()
        message.then(settled)
        held = self._held.get(queue)
        while held and self._windows.open(queue):
            self._send(held.popleft())
        if held is not None and not held:
            self._held.pop(queue, None)


def _now_s() -> float:
    return asyncio.get_running_loop().time()
