"""The way out of a shard: publishes requests, joined where they may be, and ends those the broker does not take.

Beside `shard`, which has the connections and knows what a lost one means. All of it is synchronous but for waiting
until the connection takes more. Holds back what a queue owes too many confirms for (see `window`).
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import deque
from collections.abc import Callable
from functools import partial

from modelmq import bundles
from modelmq.amqp import Channel, Settled
from modelmq.client import request as said
from modelmq.client.pending import Entry, Pending
from modelmq.client.replies import Asked, fail
from modelmq.client.request import Request
from modelmq.client.window import Windows
from modelmq.errors import BrokerError, RequestError, Unavailable
from modelmq.messages import MODEL_EXCHANGE

_ACKED, _NACKED, _RETURNED = Settled.ACKED, Settled.NACKED, Settled.RETURNED
FRESH_S = 5.0
"""A channel younger than this is refused by a queue that has no leader, as by a full one."""
_REFUSED_S = (0.1, 1.0)
"""First and longest pause before what was refused so is sent again, all of it at once."""
Refused = Callable[[Request], RequestError]


class Outbox:
    """What is to be published of `pending`. The shard sets the channel, or None while there is none."""

    def __init__(self, pending: Pending[Asked], windows: Windows, refused: Refused) -> None:
        self.channel: Channel | None = None
        """What new requests go by."""
        self.reply_to = ""
        """Its reply address."""
        self.confirmed = False
        """Whether the broker has taken anything since this was last cleared."""
        self._pending = pending
        self._windows = windows
        self._refused = refused
        self._loop = asyncio.get_running_loop()
        self._gathered: dict[str, list[Entry[Asked]]] = {}
        """Requests of this turn of the loop that may share a message, by routing key; those that wait for their queue
        to confirm what it has as well."""
        self._held: dict[str, deque[Entry[Asked]]] = {}
        """Requests that travel alone and wait for their queue to confirm what it has, by routing key."""
        self._gathering = False
        self._fresh_until = 0.0
        self._refused_s = _REFUSED_S[0]
        self._sending_again: asyncio.TimerHandle | None = None
        self._draining: asyncio.Task[None] | None = None

    async def stop(self) -> None:
        """Nothing is published any more."""
        if self._sending_again is not None:
            self._sending_again.cancel()
        if self._draining is not None:
            self._draining.cancel()
            await asyncio.gather(self._draining, return_exceptions=True)

    def open(self, channel: Channel, reply_to: str) -> None:
        """Publish by this one from now on, answered at its address."""
        self.channel, self.reply_to = channel, reply_to
        self._fresh_until = self._loop.time() + FRESH_S

    def put(self, entry: Entry[Asked], now: float) -> None:
        """Publish, now or with others of this turn of the loop; without a channel it stays unsent."""
        channel, request = self.channel, entry.payload.request
        if channel is None:
            return
        if request.bundle_limit > 1 and bundles.may_travel_together(request.body, request.headers):
            self._gathered.setdefault(entry.payload.key, []).append(entry)
            self._send_gathered_soon()
        else:
            self._send(channel, entry, now)

    def finish(self, entry: Entry[Asked], error: RequestError) -> None:
        """It has no other answer than this error, unless it has ended already."""
        if self._pending.end(entry):
            fail(entry.payload, error)

    def _send(self, channel: Channel, entry: Entry[Asked], now: float) -> None:
        """Publish, unless the connection has more to write than it should hold; then it stays unsent for a while."""
        if not channel.connection.writable:
            self._send_when_writable(channel)
            return
        asked = entry.payload
        if not self._windows.open(asked.key):
            self._held.setdefault(asked.key, deque()).append(entry)
            return
        properties = said.properties_of(asked.request, entry.id, self.reply_to, time.time())
        try:
            channel.publish(
                MODEL_EXCHANGE,
                asked.key,
                properties,
                asked.request.body,
                mandatory=True,
                on_settled=partial(self._on_settled, entry),
            )
        except BrokerError:
            return  # the channel's end is told by itself, and decides what becomes of everything unsent
        except (ValueError, TypeError) as error:
            self.finish(entry, said.unsendable(asked.request, error))
            return
        self._windows.sent(asked.key, now)
        self._pending.sent(entry, now)

    def _send_gathered_soon(self) -> None:
        if not self._gathering:
            self._gathering = True
            self._loop.call_soon(self._send_gathered)

    def _send_gathered(self) -> None:
        self._gathering = False
        gathered, self._gathered = self._gathered, {}
        channel = self.channel
        if channel is None:
            return  # they are unsent, and sent with all others of these when there is a channel again
        now = self._loop.time()
        for key, entries in gathered.items():
            waiting = [each for each in entries if each.state == "unsent" and not each.payload.answer.done()]
            most = min((entry.payload.request.bundle_limit for entry in waiting), default=1)
            for start, end in bundles.chunks([len(entry.payload.request.body) for entry in waiting], most):
                if not self._windows.open(key):
                    self._gathered[key] = waiting[start:]
                    break
                self._send_together(channel, waiting[start:end], now)

    def _send_together(self, channel: Channel, entries: list[Entry[Asked]], now: float) -> None:
        """One message for all, where it can be one."""
        if len(entries) == 1 or not channel.connection.writable:
            for entry in entries:
                self._send(channel, entry, now)
            return
        parts = [said.part_of(entry.payload.request, entry.id) for entry in entries]
        try:
            channel.publish(
                MODEL_EXCHANGE,
                entries[0].payload.key,
                said.bundle_properties(parts, self.reply_to, time.time()),
                bundles.encode(parts),
                mandatory=True,
                on_settled=partial(self._on_all_settled, entries),
            )
        except BrokerError:
            return  # as in _send
        except (ValueError, TypeError):  # one of them cannot be a message; alone it is found out which
            for entry in entries:
                self._send(channel, entry, now)
            return
        self._windows.sent(entries[0].payload.key, now)
        for entry in entries:
            self._pending.sent(entry, now)

    def put_unsent(self) -> None:
        """There is a channel (again), or it takes more: everything that is unsent."""
        channel = self.channel
        if channel is None:
            return
        now = self._loop.time()
        self._held.clear()  # they are among the unsent
        for entry in self._pending.unsent():
            self._send(channel, entry, now)
            if not channel.connection.writable:
                self._send_when_writable(channel)
                return

    def _send_when_writable(self, channel: Channel) -> None:
        async def wait() -> None:
            with contextlib.suppress(BrokerError):
                await channel.connection.drain()
            self._draining = None
            self.put_unsent()

        if self._draining is None:
            self._draining = asyncio.create_task(wait())

    def _on_settled(self, entry: Entry[Asked], settled: Settled) -> None:
        self._end(entry, settled)
        self._go_on(entry.payload.key, settled)

    def _on_all_settled(self, entries: list[Entry[Asked]], settled: Settled) -> None:
        for entry in entries:
            self._end(entry, settled)
        self._go_on(entries[0].payload.key, settled)

    def _go_on(self, key: str, settled: Settled) -> None:
        """The queue owes one confirm less: there may be room for what waits for that."""
        now = self._loop.time()
        self._windows.settled(key, now)
        if settled is Settled.LOST:
            return  # the way is gone; what is unsent leaves by the next
        if key in self._gathered:
            self._send_gathered_soon()
        held, channel = self._held.get(key), self.channel
        while held and channel is not None and channel.connection.writable and self._windows.open(key):
            entry = held.popleft()
            if entry.state == "unsent" and not entry.payload.answer.done():
                self._send(channel, entry, now)
        if held is not None and not held:
            del self._held[key]

    def _end(self, entry: Entry[Asked], settled: Settled) -> None:
        if settled is _ACKED:
            self._pending.confirmed(entry)
            self.confirmed = True
            self._refused_s = _REFUSED_S[0]
        elif settled is _NACKED:
            self._on_refused(entry)
        elif settled is _RETURNED:
            self.finish(entry, said.returned(entry.payload.request))
        # A loss is told once for all of them, by the end of the channel: replies are lost with it as well.

    def _on_refused(self, entry: Entry[Asked]) -> None:
        """Its queue is full; or it has no leader, as when a node of a cluster was lost, and soon has another."""
        error = self._refused(entry.payload.request)
        may_pass = entry.accepted or isinstance(error, Unavailable) or self._loop.time() < self._fresh_until
        if not may_pass or not entry.idempotent:
            self.finish(entry, error)
            return
        self._pending.put_back(entry)
        if self._sending_again is None:
            pause_s = self._refused_s * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret
            self._refused_s = min(self._refused_s * 2, _REFUSED_S[1])
            self._sending_again = self._loop.call_later(pause_s, self._send_again)

    def _send_again(self) -> None:
        self._sending_again = None
        self.put_unsent()
