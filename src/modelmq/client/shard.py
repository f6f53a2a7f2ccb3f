"""One connection of the requester: publishes requests, and turns confirms, returns and losses into results.

Between `requester` and `modelmq.amqp`; answers are `replies`' part. Everything on the path of a request is synchronous:
one publish, one future that the reader resolves; what became of whom is decided by the table in `pending`, and one
timer asks it. Knows no models and no sentences.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Iterable
from functools import partial
from math import inf
from typing import NamedTuple

from modelmq import bundles
from modelmq.amqp import Channel, Connection, Link, Properties, Settled
from modelmq.client import request as said
from modelmq.client.cancels import Cancels
from modelmq.client.pending import Entry, Pending
from modelmq.client.replies import Asked, Replies, Rules, fail
from modelmq.errors import BrokerError, ChannelClosed, RequestError, Unavailable
from modelmq.messages import CONTROL_EXCHANGE, MODEL_EXCHANGE

_ACKED, _NACKED, _RETURNED = Settled.ACKED, Settled.NACKED, Settled.RETURNED
_TIMER_GRAIN_S = 0.005
"""Deadlines closer to one another than this are looked at together."""
HAND_OVER_S = 30.0
"""How long a connection that was handed over from waits for replies; then what may run twice is sent again."""
_REOPEN_S = (0.1, 5.0)
"""First and longest pause before a channel is opened again."""
FRESH_S = 5.0
"""A channel younger than this is refused by a queue that has no leader, as by a full one."""
_REFUSED_S = (0.05, 0.1)
"""Bounds of the pause before what was refused so is sent again."""
_NOT_FOUND, _FORBIDDEN = 404, 403


class _Way(NamedTuple):
    """A channel by which requests went, the address they are answered at, and what withdraws them."""

    channel: Channel
    reply_to: str
    cancels: Cancels


class Shard:
    """One connection with one channel, over the life of many of both."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._pending: Pending[Asked] = Pending(rules.confirm_timeout_s)
        self._replies = Replies(self._pending, rules.rights, rules.service, rules.emit, rules.on_report)
        self._link = Link(rules.options, self._set_up, service=rules.service, emit=rules.emit, retire=self._retire)
        self._loop = asyncio.get_running_loop()
        self._channel: Channel | None = None
        """What new requests go by."""
        self._reply_to = ""
        """The channel's reply address."""
        self._ways: dict[int, _Way] = {}
        """By number, as `pending` knows them: these two, and those by which replies to earlier requests come."""
        self._refusal: ChannelClosed | None = None
        self._reopen_s = _REOPEN_S[0]
        self._stopped = False
        self._gathered: dict[str, list[Entry[Asked]]] = {}
        """Requests of this turn of the loop that may share a message, by routing key."""
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = inf
        self._fresh_until = 0.0
        self._sending_again: asyncio.TimerHandle | None = None
        self._reopening: asyncio.Task[None] | None = None
        self._draining: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._pending)

    async def start(self) -> None:
        """Begin to connect."""
        await self._link.start()

    async def up(self) -> None:
        """Wait until the connection is ready to publish."""
        await self._link.up()

    async def stop(self) -> None:
        """Close; what waits ends as unavailable."""
        self._stopped = True
        for entry in self._pending:
            self._cancel(entry)
        self._fail_all("This client was closed while the request waited")
        for timer in (self._timer, self._sending_again):
            if timer is not None:
                timer.cancel()
        tasks = [task for task in (self._reopening, self._draining, self._closing) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, *(way.cancels.sent() for way in self._ways.values()), return_exceptions=True)
        await self._link.stop()

    def problem(self) -> str:
        """Why nothing can be sent now; empty when it can."""
        if self._stopped:
            return "This client is closed"
        if self._refusal is not None:
            return said.refusal(self._refusal)
        if self._channel is None:
            return f"There is no connection to RabbitMQ ({self._link.problem.rstrip('.')})"
        if self._channel.connection.blocked:
            return "RabbitMQ takes no requests now, because it is short of memory or disk"
        return ""

    def ask(self, id_: str, asked: Asked) -> Entry[Asked]:
        """Send, or keep until there is a connection; the answer comes in `asked.answer`. Raises RequestError."""
        request = asked.request
        left_s = request.deadline_unix_s - time.time()
        if left_s <= 0:
            raise said.expired(request)
        channel = self._channel
        if self._stopped or self._refusal is not None or (channel is not None and channel.connection.blocked):
            raise said.unavailable(self.problem())
        if len(request.body) > said.LARGEST_BODY_BYTES:
            raise said.too_large(request)
        if len(self._pending) >= self._rules.max_in_flight:
            raise said.too_many(request, self._rules.max_in_flight)
        now = self._loop.time()
        entry = self._pending.add(id_, asked, now + left_s, now, idempotent=request.idempotent)
        if channel is not None:
            if request.bundle_limit > 1 and bundles.may_travel_together(request.body, request.headers):
                self._gather(entry)
            else:
                self._send(channel, entry, now)
        look_at = entry.deadline_s if entry.deadline_s < entry.give_up_s else entry.give_up_s
        if look_at < self._timer_at:
            self._look_at(look_at)
        return entry

    def withdraw(self, entry: Entry[Asked]) -> None:
        """Nobody waits for it any more."""
        answer = entry.payload.answer
        if answer.done() and not answer.cancelled():
            answer.exception()  # asked for, so that asyncio does not report it as lost
        if self._pending.end(entry):
            self._cancel(entry)

    def say(self, properties: Properties, body: bytes) -> bool:
        """Publish to the control exchange with this channel's reply address; False when that cannot be done now."""
        channel, properties.reply_to = self._channel, self._reply_to
        if channel is None or channel.connection.blocked or not channel.connection.writable:
            return False
        try:
            channel.publish(CONTROL_EXCHANGE, "", properties, body)
        except BrokerError:
            return False
        return True

    # The way out.

    def _send(self, channel: Channel, entry: Entry[Asked], now: float) -> None:
        """Publish, unless the connection has more to write than it should hold; then it stays unsent for a while."""
        if not channel.connection.writable:
            self._send_when_writable(channel)
            return
        asked = entry.payload
        properties = said.properties_of(asked.request, entry.id, self._reply_to, time.time())
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
            self._finish(entry, said.unsendable(asked.request, error))
            return
        self._pending.sent(entry, now)

    def _gather(self, entry: Entry[Asked]) -> None:
        """Until the end of this turn of the loop; nobody is waited for."""
        if not self._gathered:
            self._loop.call_soon(self._send_gathered)
        self._gathered.setdefault(entry.payload.key, []).append(entry)

    def _send_gathered(self) -> None:
        gathered, self._gathered = self._gathered, {}
        channel = self._channel
        if channel is None:
            return  # they are unsent, and sent with all others of these when there is a channel again
        now = self._loop.time()
        for entries in gathered.values():
            waiting = [each for each in entries if each.state == "unsent" and not each.payload.answer.done()]
            most = min((entry.payload.request.bundle_limit for entry in waiting), default=1)
            for start, end in bundles.chunks([len(entry.payload.request.body) for entry in waiting], most):
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
                said.bundle_properties(parts, self._reply_to, time.time()),
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
        for entry in entries:
            self._pending.sent(entry, now)

    def _send_unsent(self) -> None:
        channel = self._channel
        if channel is None:
            return
        now = self._loop.time()
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
            self._send_unsent()

        if self._draining is None:
            self._draining = asyncio.create_task(wait())

    def _cancel(self, entry: Entry[Asked]) -> None:
        """Nobody need compute it any more, if it was sent at all."""
        way = self._ways.get(entry.way)
        if way is not None:
            way.cancels.send(entry.id, entry.payload.request.deadline_unix_s)

    # What the broker tells.

    def _on_settled(self, entry: Entry[Asked], settled: Settled) -> None:
        if settled is _ACKED:
            self._pending.confirmed(entry)
            self._reopen_s = _REOPEN_S[0]
        elif settled is _NACKED:
            self._on_refused(entry)
        elif settled is _RETURNED:
            self._finish(entry, said.returned(entry.payload.request))
        # A loss is told once for all of them, by the end of the channel: replies are lost with it as well.

    def _on_all_settled(self, entries: list[Entry[Asked]], settled: Settled) -> None:
        for entry in entries:
            self._on_settled(entry, settled)

    def _on_refused(self, entry: Entry[Asked]) -> None:
        """Its queue is full; or it has no leader, as when a node of a cluster was lost, and soon has another."""
        error = self._rules.refused(entry.payload.request)
        may_pass = entry.accepted or isinstance(error, Unavailable) or self._loop.time() < self._fresh_until
        if not may_pass or not entry.idempotent:
            self._finish(entry, error)
            return
        self._pending.put_back(entry)
        if self._sending_again is None:
            pause_s = random.uniform(*_REFUSED_S)  # noqa: S311 - jitter, not a secret
            self._sending_again = self._loop.call_later(pause_s, self._send_again)

    def _send_again(self) -> None:
        self._sending_again = None
        self._send_unsent()

    def _finish(self, entry: Entry[Asked], error: RequestError) -> None:
        if self._pending.end(entry):
            fail(entry.payload, error)

    def _fail_all(self, problem: str) -> None:
        for entry in self._pending:
            self._finish(entry, said.unavailable(problem))

    # Time.

    def _look_at(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        self._timer = self._loop.call_at(at, self._look)

    def _look(self) -> None:
        now = self._loop.time()
        self._timer, self._timer_at = None, inf
        unconfirmed = f"RabbitMQ did not confirm the request within {self._rules.confirm_timeout_s:g} s"
        for entry, verdict in self._pending.due(now):
            if verdict == "expired":
                fail(entry.payload, said.expired(entry.payload.request))
            elif entry.refused:
                fail(entry.payload, self._rules.refused(entry.payload.request))
            else:
                fail(entry.payload, said.unavailable(self.problem() or unconfirmed))
            self._cancel(entry)
        next_at = self._pending.next_at()
        if next_at is not None and not self._stopped:
            self._look_at(max(next_at, now + _TIMER_GRAIN_S))

    # The life of the channel.

    async def _set_up(self, connection: Connection) -> None:
        channel = await connection.channel()
        await channel.confirm_select()
        reply_to = await self._replies.listen(channel, partial(self._close, channel))
        if self._stopped:
            return
        if self._reopening is not None and self._reopening is not asyncio.current_task():
            self._reopening.cancel()  # on a connection that this one takes over from
        self._pending.way += 1
        self._ways[self._pending.way] = _Way(channel, reply_to, Cancels(connection, channel, reply_to))
        channel.closed.add_done_callback(partial(self._on_closed, connection, self._pending.way))
        self._channel, self._reply_to = channel, reply_to
        self._fresh_until = self._loop.time() + FRESH_S
        self._refusal = None
        self._send_unsent()

    def _close(self, channel: Channel) -> None:
        """Nobody can be answered over this channel any more; its end leads to another."""
        self._closing = asyncio.create_task(channel.close())

    async def _retire(self, connection: Connection) -> None:
        """Replies to what was sent over it come over it. What takes too long is sent again, if it may run twice."""
        ways = [number for number, way in self._ways.items() if way.channel.connection is connection]
        await self._answered(ways, HAND_OVER_S)
        for way in ways:
            self._pending.again(self._loop.time(), way)
        self._look_in_time()
        self._send_unsent()
        await self._answered(ways, None)
        await asyncio.gather(*(self._ways[way].cancels.sent() for way in ways if way in self._ways))

    async def _answered(self, ways: Iterable[int], timeout_s: float | None) -> None:
        """Until all that is under way by these is; none outlives its deadline."""
        answers = [entry.payload.answer for way in ways for entry in self._pending.under_way(way)]
        if answers:
            await asyncio.wait(answers, timeout=timeout_s)

    def _on_closed(self, connection: Connection, way: int, closed: asyncio.Future[BrokerError | None]) -> None:
        channel = self._ways.pop(way).channel
        if self._stopped:
            return
        was_current = channel is self._channel
        if was_current:
            self._channel = None
        error = closed.result()
        if was_current and isinstance(error, ChannelClosed) and error.reply_code in (_NOT_FOUND, _FORBIDDEN):
            self._refusal = error
            self._fail_all(said.refusal(error))
        else:
            if isinstance(error, ChannelClosed):
                self._fail_suspects(error, way)
            self._give_back_lost(way)
        if was_current and not connection.closed.done():
            self._reopening = asyncio.create_task(self._reopen(connection))

    def _fail_suspects(self, error: ChannelClosed, way: int) -> None:
        """One of the messages that were not confirmed may be the reason; sent again it would close the next channel."""
        for entry in self._pending.under_way(way):
            if entry.state == "sent":
                self._finish(entry, said.unavailable(f"The request was under way when {error.message.rstrip('.')}"))

    def _give_back_lost(self, way: int) -> None:
        for entry in self._pending.lost(self._loop.time(), way):
            fail(entry.payload, said.unavailable("The connection to RabbitMQ was lost while the request was under way"))
        self._look_in_time()
        self._send_unsent()

    def _look_in_time(self) -> None:
        next_at = self._pending.next_at()
        if next_at is not None and next_at < self._timer_at:
            self._look_at(next_at)

    async def _reopen(self, connection: Connection) -> None:
        """A channel again on a connection that lives; when it ends, the link makes another."""
        while not connection.closed.done():
            pause_s = self._reopen_s * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret
            self._reopen_s = min(self._reopen_s * 2, _REOPEN_S[1])
            await asyncio.sleep(pause_s)
            try:
                await self._set_up(connection)
            except BrokerError:
                continue
            return
