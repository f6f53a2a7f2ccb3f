"""One connection of the requester: takes requests, and turns losses and time into results.

Between `requester` and `modelmq.amqp`; the way out is `outbox`, the way back `replies`. Everything on the path of a
request is synchronous: one publish, one future that the reader resolves; what became of whom is decided by the table in
`pending`, and one timer asks it. Knows no models and no sentences.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf

from modelmq.amqp import Channel, Connection, Link, Properties
from modelmq.client import request as said
from modelmq.client.address import ReplyAddress
from modelmq.client.cancels import Cancels
from modelmq.client.outbox import Outbox
from modelmq.client.pending import Entry, Pending
from modelmq.client.replies import Asked, Replies, Rules, fail
from modelmq.client.scouts import Sender
from modelmq.client.window import Windows
from modelmq.errors import BrokerError, ChannelClosed
from modelmq.messages import CONTROL_EXCHANGE

_TIMER_GRAIN_S = 0.005
"""Deadlines closer to one another than this are looked at together."""
HAND_OVER_S = 30.0
"""How long a connection that was handed over from waits for replies; then what may run twice is sent again."""
_REOPEN_S = (0.1, 5.0)
"""First and longest pause before a channel is opened again."""
_NOT_FOUND, _FORBIDDEN = 404, 403
_MOST_WAYS = 8
"""Channels at one time, all but one of which wait for their last replies."""


@dataclass(eq=False, slots=True)
class _Way:
    """A channel by which requests went, and what withdraws them."""

    connection: Connection
    channel: Channel
    cancels: Cancels
    renewing: bool = False
    """Another is being opened in its place."""
    refusal: ChannelClosed | None = None
    """Why the broker closed a scout of it, so that it is closed as well."""


class Shard:
    """One connection with one channel, over the life of many of both."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._pending: Pending[Asked] = Pending(rules.confirm_timeout_s)
        self._replies = Replies(self._pending, rules.rights, rules.service, rules.emit, rules.on_report)
        self._link = Link(rules.options, self._set_up, service=rules.service, emit=rules.emit, retire=self._retire)
        self._loop = asyncio.get_running_loop()
        self._windows = Windows(rules.unconfirmed, rules.confirm_timeout_s)
        self._outbox = Outbox(self._pending, self._windows, rules.refused, self._renew)
        self._ways: dict[int, _Way] = {}
        """By number, as `pending` knows them: the outbox's, and those by which replies to earlier requests come."""
        self._refusal: ChannelClosed | None = None
        self._reopen_s = _REOPEN_S[0]
        self._stopped = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = inf
        self._reopening: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._renewing: set[asyncio.Task[None]] = set()

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
        if self._timer is not None:
            self._timer.cancel()
        tasks = [task for task in (self._reopening, self._closing, *self._renewing) if task is not None]
        for task in tasks:
            task.cancel()
        await self._outbox.stop()
        await asyncio.gather(*tasks, *(way.cancels.sent() for way in self._ways.values()), return_exceptions=True)
        await self._link.stop()

    def problem(self) -> str:
        """Why nothing can be sent now; empty when it can."""
        if self._stopped:
            return "This client is closed"
        if self._refusal is not None:
            return said.refusal(self._refusal)
        if self._outbox.channel is None:
            return f"There is no connection to RabbitMQ ({self._link.problem.rstrip('.')})"
        if self._outbox.channel.connection.blocked:
            return "RabbitMQ takes no requests now, because it is short of memory or disk"
        return ""

    def ask(self, id_: str, asked: Asked) -> Entry[Asked]:
        """Send, or keep until there is a connection; the answer comes in `asked.answer`. Raises RequestError."""
        request = asked.request
        left_s = request.deadline_unix_s - time.time()
        if left_s <= 0:
            raise said.expired(request)
        channel = self._outbox.channel
        if self._stopped or self._refusal is not None or (channel is not None and channel.connection.blocked):
            raise said.unavailable(self.problem())
        if len(request.body) > said.LARGEST_BODY_BYTES:
            raise said.too_large(request)
        if len(self._pending) >= self._rules.max_in_flight:
            raise said.too_many(request, self._rules.max_in_flight)
        now = self._loop.time()
        if self._windows.refuses(asked.queue, now):
            raise said.unconfirming(request)
        entry = self._pending.add(id_, asked, now + left_s, now, idempotent=request.idempotent)
        self._outbox.put(entry, now)
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
        channel, properties.reply_to = self._outbox.channel, self._outbox.reply_to
        if channel is None or channel.connection.blocked or not channel.connection.writable:
            return False
        try:
            channel.publish(CONTROL_EXCHANGE, "", properties, body)
        except BrokerError:
            return False
        return True

    def _cancel(self, entry: Entry[Asked]) -> None:
        """Nobody need compute it any more, if it was sent at all."""
        way = self._ways.get(entry.way)
        if way is not None:
            way.cancels.send(entry.id, entry.payload.request.deadline_unix_s)

    def _fail_all(self, problem: str) -> None:
        for entry in self._pending:
            self._outbox.finish(entry, said.unavailable(problem))

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

    async def _set_up(self, connection: Connection, instead_of: Channel | None = None) -> None:
        """A channel for what is asked from now on; unless the one that it is to replace was replaced meanwhile."""
        channel = await connection.channel()
        await channel.confirm_select()
        reply_to = await self._replies.listen(channel, partial(self._close, channel))
        if self._stopped:
            return
        if instead_of is not None and self._outbox.channel is not instead_of:
            await channel.close()
            return
        if self._reopening is not None and self._reopening is not asyncio.current_task():
            self._reopening.cancel()  # on a connection that this one takes over from
        self._pending.way += 1
        address = ReplyAddress(channel, reply_to)
        way = self._ways[self._pending.way] = _Way(connection, channel, Cancels(connection, channel, address))
        channel.closed.add_done_callback(partial(self._on_closed, connection, self._pending.way))
        scout = partial(_scout, connection, address) if self._rules.unconfirmed is not None else None
        self._outbox.open(channel, reply_to, scout, partial(self._on_scout_refused, way), fresh=instead_of is None)
        self._refusal = None
        self._outbox.put_unsent()

    def _close(self, channel: Channel) -> None:
        """Nobody can be answered over this channel any more; its end leads to another."""
        self._closing = asyncio.create_task(channel.close())

    async def _retire(self, connection: Connection) -> None:
        """Replies to what was sent over it come over it. What takes too long is sent again, if it may run twice."""
        ways = [number for number, way in self._ways.items() if way.connection is connection]
        await self._answered(ways, HAND_OVER_S)
        await self._hand_over(ways)

    async def _hand_over(self, ways: Sequence[int]) -> None:
        """What these still have under way is sent again where it may run twice; the rest is waited for."""
        for way in ways:
            self._pending.again(self._loop.time(), way)
        self._look_in_time()
        self._outbox.put_unsent()
        await self._answered(ways, None)
        await asyncio.gather(*(self._ways[way].cancels.sent() for way in ways if way in self._ways))

    def _renew(self) -> None:
        """Another channel on the same connection; what was sent by this one is still answered by it."""
        way = self._ways.get(self._pending.way)
        if way is None or len(self._ways) >= _MOST_WAYS or way.renewing:
            return
        way.renewing = True
        task = asyncio.create_task(self._renewed(self._pending.way, way))
        self._renewing.add(task)
        task.add_done_callback(self._renewing.discard)

    async def _renewed(self, number: int, way: _Way) -> None:
        """Nothing is sent again while there may be more channels: who has an answer to come has one for it."""
        try:
            await self._set_up(way.connection, way.channel)
            if self._outbox.channel is not way.channel:
                while self._pending.under_way(number):
                    await self._answered([number], HAND_OVER_S)
                    if len(self._ways) >= _MOST_WAYS:
                        await self._hand_over([number])
                await way.cancels.sent()
                await way.channel.close()
        except BrokerError:
            return  # the connection's end, or the next refusals, lead to another
        finally:
            way.renewing = False

    async def _answered(self, ways: Iterable[int], timeout_s: float | None) -> None:
        """Until all that is under way by these is; none outlives its deadline."""
        answers = [entry.payload.answer for way in ways for entry in self._pending.under_way(way)]
        if answers:
            await asyncio.wait(answers, timeout=timeout_s)

    def _on_closed(self, connection: Connection, way: int, closed: asyncio.Future[BrokerError | None]) -> None:
        gone = self._ways.pop(way)
        if self._stopped:
            return
        was_current = gone.channel is self._outbox.channel
        if was_current:
            self._outbox.channel = None
        error = closed.result() or gone.refusal
        if was_current and isinstance(error, ChannelClosed) and error.reply_code in (_NOT_FOUND, _FORBIDDEN):
            self._refusal = error
            self._fail_all(said.refusal(error))
        else:
            if isinstance(error, ChannelClosed):
                self._fail_suspects(error, way)
            self._give_back_lost(way)
        if was_current and not connection.closed.done():
            self._reopening = asyncio.create_task(self._reopen(connection))

    def _on_scout_refused(self, way: _Way, error: ChannelClosed) -> None:
        """As if the broker had told the channel that it scouted for."""
        way.refusal = error
        way.channel.leave()

    def _fail_suspects(self, error: ChannelClosed, way: int) -> None:
        """One of the messages that were not confirmed may be the reason; sent again it would close the next channel."""
        for entry in self._pending.under_way(way):
            if entry.state == "sent":
                self._outbox.finish(
                    entry, said.unavailable(f"The request was under way when {error.message.rstrip('.')}")
                )

    def _give_back_lost(self, way: int) -> None:
        for entry in self._pending.lost(self._loop.time(), way):
            fail(entry.payload, said.unavailable("The connection to RabbitMQ was lost while the request was under way"))
        self._look_in_time()
        self._outbox.put_unsent()

    def _look_in_time(self) -> None:
        next_at = self._pending.next_at()
        if next_at is not None and next_at < self._timer_at:
            self._look_at(next_at)

    async def _reopen(self, connection: Connection) -> None:
        """A channel again on a connection that lives; when it ends, the link makes another."""
        while not connection.closed.done():
            if self._outbox.confirmed:
                self._outbox.confirmed, self._reopen_s = False, _REOPEN_S[0]
            pause_s = self._reopen_s * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret
            self._reopen_s = min(self._reopen_s * 2, _REOPEN_S[1])
            await asyncio.sleep(pause_s)
            try:
                await self._set_up(connection)
            except BrokerError:
                continue
            return


async def _scout(connection: Connection, address: ReplyAddress) -> Sender:
    """A channel that publishes what is answered at this address. Raises BrokerError."""
    channel = await connection.channel()
    try:
        await channel.confirm_select()
        return Sender(channel, await address.everywhere())
    except BrokerError:
        channel.leave()
        raise
