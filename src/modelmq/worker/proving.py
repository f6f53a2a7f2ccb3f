"""Sends the first reply to each broker node over a spare connection, because a forged address would cost the main one.

RabbitMQ ends the connection that replies to a direct address of a node it does not know, and with it everything that
is held and computed there. Only what was confirmed once goes the short way, through the lanes; when a node leaves, that
costs the main connection all the same, and then everything is proved again. Where replies go to queues there are no
direct addresses, and nothing is to be proved. Knows no models.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import NamedTuple

from modelmq.amqp import Channel, Connection, ConnectionOptions, Properties, Settled, connect
from modelmq.errors import BrokerError, ConfigError
from modelmq.events import Emit, MessageRefused
from modelmq.worker import reply_address

Then = Callable[[Settled], None]

MOST_KNOWN = 10_000
MOST_WAITING = 10_000
"""Replies that wait for their turn; what is more goes back to its queue for a while."""
MOST_REPORTS = 256
"""Addresses whose reports wait; who asks again is told later."""
_INTERNAL_ERROR = 541
_DROPPED = "RabbitMQ closed the connection that replied to this reply_to; the reply is dropped."


class _Reply(NamedTuple):
    address: str
    properties: Properties
    body: bytes
    then: Then


class ProvingPublisher:
    """One spare connection, made when it is first needed. `run` works until cancelled."""

    def __init__(self, options: ConnectionOptions, exchange: str, emit: Emit) -> None:
        self._options = options
        self._exchange = exchange
        self._emit = emit
        self._known: OrderedDict[str, None] = OrderedDict()
        # By what they have to prove, so that many forged addresses make nobody wait who shares none with them.
        self._waiting: OrderedDict[str, deque[_Reply]] = OrderedDict()
        self._held = 0
        """Replies that wait; at most MOST_WAITING."""
        self._reports: OrderedDict[str, _Reply] = OrderedDict()
        """By address; at most MOST_REPORTS."""
        self._news = asyncio.Event()
        self._renewing = False
        self._connection: Connection | None = None
        self._channel: Channel | None = None

    def proven(self, address: str) -> bool:
        """Whether replies to this address may go over a connection that others use."""
        risk = reply_address.risk(address)
        return not risk or risk in self._known

    def publish(self, address: str, properties: Properties, body: bytes, then: Then) -> None:
        """Reply; `then` is called once, with RETURNED where the address is a bad one and nobody can be answered.

        LOST when too many wait.
        """
        if self._held >= MOST_WAITING:
            then(Settled.LOST)
            return
        self._held += 1
        self._waiting.setdefault(reply_address.risk(address), deque()).append(_Reply(address, properties, body, then))
        self._news.set()

    def report(self, address: str, properties: Properties, body: bytes, then: Then) -> None:
        """Tell this address what is served, in turn with the replies: a gateway must not wait for all of those.

        `then` is called as for a reply; LOST also when a later report takes the place of this one.
        """
        report = _Reply(address, properties, body, then)
        older = self._reports.get(address)
        if older is None and len(self._reports) >= MOST_REPORTS:
            then(Settled.LOST)
            return
        self._reports[address] = report
        self._news.set()
        if older is not None:
            older.then(Settled.LOST)

    def renew(self) -> None:
        """The login changed: after the reply under way the connection is closed; the next one makes another."""
        self._renewing = True
        self._news.set()

    def distrust(self, ended: BrokerError | None) -> None:
        """A connection that proven replies went by ended for this reason: if for a reply, everything is to be proved.

        A node has left, and it cannot be told which.
        """
        if ended is not None and ended.reply_code == _INTERNAL_ERROR:
            self._known.clear()

    async def run(self) -> None:
        """One proof after another, so that it is known which reply the broker did not bear."""
        try:
            while True:
                await self._news.wait()
                self._news.clear()
                while self._renewing or self._reports or self._waiting:
                    if self._renewing:
                        self._renewing = False
                        await self._close()
                    await self._prove_report()
                    await self._prove_replies()
        finally:
            await self._close()

    async def _prove_report(self) -> None:
        """The one that waits longest, if any."""
        if self._reports:
            _, report = self._reports.popitem(last=False)
            report.then(await self._sent(report))

    async def _prove_replies(self) -> None:
        """Those of one node, if any: by the first; the others follow it, or take their turn again behind the rest."""
        if not self._waiting:
            return
        risk, replies = self._waiting.popitem(last=False)
        first = self._next(replies)
        verdict = await self._sent(first)
        first.then(verdict)
        channel = self._channel
        while replies and verdict is Settled.ACKED and channel is not None and not channel.closed.done():
            reply = self._next(replies)
            channel.publish(self._exchange, reply.address, reply.properties, reply.body, on_settled=reply.then)
        if replies:
            self._waiting.setdefault(risk, deque()).extend(replies)

    def _next(self, replies: deque[_Reply]) -> _Reply:
        self._held -= 1
        return replies.popleft()

    async def _close(self) -> None:
        connection, self._connection, self._channel = self._connection, None, None
        if connection is not None:
            await connection.close()

    async def _sent(self, reply: _Reply) -> Settled:
        settled: asyncio.Future[Settled] = asyncio.get_running_loop().create_future()
        try:
            channel = await self._open()
            channel.publish(self._exchange, reply.address, reply.properties, reply.body, on_settled=settled.set_result)
        except (BrokerError, ConfigError):
            return Settled.LOST
        verdict = await settled
        if verdict is Settled.ACKED:
            self._know(reply_address.risk(reply.address))
        elif verdict is Settled.LOST and _reply_code(channel) == _INTERNAL_ERROR:
            self._emit(MessageRefused(reply.properties.correlation_id or "", "", "invalid", _DROPPED))
            return Settled.RETURNED
        return verdict

    async def _open(self) -> Channel:
        """The channel, on a new connection where the one before has ended. Raises BrokerError, ConfigError."""
        if self._channel is None or self._channel.closed.done():
            if self._connection is None or self._connection.closed.done():
                self._connection = await connect(self._options)
            self._channel = await self._connection.channel()
            await self._channel.confirm_select()
        return self._channel

    def _know(self, risk: str) -> None:
        self._known[risk] = None
        if len(self._known) > MOST_KNOWN:
            self._known.popitem(last=False)


def _reply_code(channel: Channel) -> int:
    """With which the broker ended it."""
    reason = channel.closed.result() if channel.closed.done() else None
    return reason.reply_code if reason is not None else 0
