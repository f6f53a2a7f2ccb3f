"""The way out of a shard: publishes requests, joined where they may be, and ends those the broker does not take.

Beside `shard`, which has the connections and knows what a lost one means. All of it is synchronous but for waiting
until the connection takes more. Holds back what a queue owes too many confirms for (see `window`), and what waits for
the first message to its queue (see `scouts`).
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

from modelmq import bundles
from modelmq.amqp import Channel, Properties, Settled
from modelmq.client import request as said
from modelmq.client.pending import Entry, Pending
from modelmq.client.refusals import Refusals
from modelmq.client.replies import Asked, fail
from modelmq.client.request import Request
from modelmq.client.scouts import OnRefused, Open, Scouts, Sender
from modelmq.client.window import Windows
from modelmq.errors import BrokerError, RequestError, Unavailable
from modelmq.messages import MODEL_EXCHANGE

_ACKED, _NACKED, _RETURNED = Settled.ACKED, Settled.NACKED, Settled.RETURNED
FRESH_S = 5.0
"""A channel younger than this is refused by a queue that has no leader, as by a full one."""
_CROWD = 8
"""With so many requests under way, more are likely to have arrived by the time a bundle of some is made."""
_LOOKS = 3
"""Turns of the loop for which a crowd's bundle is kept open: each takes in what has arrived, and none waits."""
_REFUSED_S = (0.1, 1.0)
"""First and longest pause before what was refused so is sent again, all of it at once."""
Refused = Callable[[Request], RequestError]


class Outbox:
    """What is to be published of `pending`. The shard sets the channel, or None while there is none."""

    def __init__(self, pending: Pending[Asked], windows: Windows, refused: Refused, renew: Callable[[], None]) -> None:
        """`renew` is called when another channel may be taken from where this one is refused."""
        self.channel: Channel | None = None
        """What new requests go by, but for those that `scouts` has another for."""
        self.reply_to = ""
        """Its reply address."""
        self._scouts: Scouts
        """Of the channel, once there was one."""
        self.confirmed = False
        """Whether the broker has taken anything since this was last cleared."""
        self._pending = pending
        self._windows = windows
        self._refused = refused
        self._renew = renew
        self._refusals = Refusals()
        self._loop = asyncio.get_running_loop()
        self._gathered: dict[str, list[Entry[Asked]]] = {}
        """Requests of this turn of the loop, or of a few, that may share a message, by routing key."""
        self._held: dict[str, deque[Entry[Asked]]] = {}
        """Requests that wait until their queue, by which they are kept, has confirmed more of what it has."""
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

    def open(
        self,
        channel: Channel,
        reply_to: str,
        scout: Open | None = None,
        on_refused: OnRefused | None = None,
        *,
        fresh: bool = True,
    ) -> None:
        """Publish by this one from now on, answered at its address. Not `fresh`: its queues were told full before.

        `scout` and `on_refused` as in `Scouts`.
        """
        self.channel, self.reply_to = channel, reply_to
        self._scouts = Scouts(Sender(channel, reply_to), scout, self._send_held, on_refused)
        self._refusals.replaced()
        if fresh:
            self._fresh_until = self._loop.time() + FRESH_S

    def put(self, entry: Entry[Asked], now: float) -> None:
        """Publish, now or with others that come at the same time; without a channel it stays unsent."""
        asked = entry.payload
        if self.channel is None:
            return
        if self._sender(asked.queue) is None:
            self._hold(entry)
        elif _may_share(entry):
            if not self._gathered:
                self._loop.call_soon(self._gather, _LOOKS if len(self._pending) >= _CROWD else 0)
            self._gathered.setdefault(asked.key, []).append(entry)
        else:
            self._send(self.channel, entry, now)

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
        sender = self._sender(asked.queue)
        if sender is None:
            self._hold(entry)
            return
        now_unix_s = time.time()
        if asked.request.deadline_unix_s <= now_unix_s:  # by the clock that workers see, which may have been set
            self.finish(entry, said.expired(asked.request))
            return
        properties = said.properties_of(asked.request, entry.id, sender.reply_to, now_unix_s)
        try:
            self._publish(sender, (entry,), properties, asked.request.body, now)
        except BrokerError:
            return  # the channel's end is told by itself, and decides what becomes of everything unsent
        except (ValueError, TypeError) as error:
            self.finish(entry, said.unsendable(asked.request, error))

    def _publish(
        self, sender: Sender, entries: Sequence[Entry[Asked]], properties: Properties, body: bytes, now: float
    ) -> None:
        """Raises BrokerError where the channel has ended, ValueError and TypeError for what cannot be a message."""
        asked, scouts = entries[0].payload, self._scouts
        then = partial(self._on_settled, entries, self._pending.way)
        settled = scouts.hears(asked.queue, sender, then)
        sender.channel.publish(MODEL_EXCHANGE, asked.key, properties, body, mandatory=True, on_settled=settled)
        scouts.sent(asked.queue, sender)
        self._windows.sent(asked.queue, now)
        for entry in entries:
            self._pending.sent(entry, now)

    def _sender(self, queue: str) -> Sender | None:
        """What a message to this queue may go by now; None where it must wait for others of its queue."""
        return self._scouts.sender(queue) if self._windows.open(queue) else None

    def _hold(self, entry: Entry[Asked]) -> None:
        self._held.setdefault(entry.payload.queue, deque()).append(entry)

    def _gather(self, looks: int) -> None:
        if looks > 0:
            self._loop.call_soon(self._gather, looks - 1)
        else:
            self._send_gathered()

    def _send_gathered(self) -> None:
        gathered, self._gathered = self._gathered, {}
        channel = self.channel
        if channel is None:
            return  # they are unsent, and sent with all others of these when there is a channel again
        now = self._loop.time()
        for entries in gathered.values():
            waiting = list(filter(_waits, entries))
            for start, end in _cuts(waiting):
                self._send_together(channel, waiting[start:end], now)
        channel.connection.flush()  # whoever comes next has work to do while the rest of this turn is done

    def _send_together(self, channel: Channel, entries: list[Entry[Asked]], now: float) -> None:
        """One message for all, where it can be one."""
        sender = self._sender(entries[0].payload.queue)
        if len(entries) == 1 or not channel.connection.writable or sender is None:
            for entry in entries:
                self._send(channel, entry, now)
            return
        parts = [said.part_of(entry.payload.request, entry.id) for entry in entries]
        try:
            properties = said.bundle_properties(parts, sender.reply_to, time.time())
            self._publish(sender, entries, properties, bundles.encode(parts), now)
        except BrokerError:
            return  # as in _send
        except (ValueError, TypeError):  # one of them cannot be a message; alone it is found out which
            for entry in entries:
                self._send(channel, entry, now)

    def put_unsent(self) -> None:
        """There is a channel (again), or it takes more: everything that is unsent."""
        channel = self.channel
        if channel is None:
            return
        now = self._loop.time()
        self._held.clear()  # they are among the unsent, as are those gathered
        self._gathered.clear()
        for entry in self._pending.unsent():
            self.put(entry, now)
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

    def _on_settled(self, entries: Sequence[Entry[Asked]], way: int, settled: Settled) -> None:
        queue = entries[0].payload.queue
        for entry in entries:
            if entry.way == way:  # else it has gone by another since, whose word it is
                self._end(entry, settled)
        if settled is _ACKED:
            self._refusals.taken(queue)
        elif settled is _NACKED and way == self._pending.way and self._refusals.refused(queue, self._loop.time()):
            self._renew()
        self._windows.settled(queue, self._loop.time())
        if settled is not Settled.LOST:  # when the way is gone, what is unsent leaves by the next
            self._send_held(queue)

    def _send_held(self, queue: str) -> None:
        """There may be room for what waits for that."""
        held, channel, now = self._held.get(queue), self.channel, self._loop.time()
        if held is None or channel is None:
            return
        while held and self._sender(queue) is not None:
            if not channel.connection.writable:
                self._send_when_writable(channel)
                return
            entries = _next_of(held)
            if entries:
                self._send_together(channel, entries, now)
        if not held:
            self._held.pop(queue, None)

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


def _waits(entry: Entry[Asked]) -> bool:
    return entry.state == "unsent" and not entry.payload.answer.done()


def _may_share(entry: Entry[Asked]) -> bool:
    """A message with others."""
    request = entry.payload.request
    return request.bundle_limit > 1 and bundles.may_travel_together(request.body, request.headers)


def _cuts(entries: Sequence[Entry[Asked]]) -> list[tuple[int, int]]:
    """Where to cut requests of one routing key into messages."""
    most = min((entry.payload.request.bundle_limit for entry in entries), default=1)
    return bundles.chunks([len(entry.payload.request.body) for entry in entries], most)


def _next_of(held: deque[Entry[Asked]]) -> list[Entry[Asked]]:
    """One message's worth from the left; those that wait no longer are dropped on the way."""
    taken: list[Entry[Asked]] = []
    while held and len(taken) < bundles.MOST_PARTS:
        entry = held[0]
        if _waits(entry):
            shares = _may_share(entry)
            if taken and not (shares and entry.payload.key == taken[0].payload.key):
                break
            taken.append(entry)
            if not shares:
                held.popleft()
                break
        held.popleft()
    if len(taken) > 1:
        end = _cuts(taken)[0][1]
        held.extendleft(reversed(taken[end:]))
        del taken[end:]
    return taken
