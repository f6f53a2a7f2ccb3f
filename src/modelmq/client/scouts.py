"""Which channel a request goes by: the first to a queue by a scout, a channel of its own, all others by the main one.

RabbitMQ lets a channel's first message to a quorum queue wait for the leader of that queue, and all that comes behind
it on that channel (`rabbit_fifo_client:enqueue`, which registers the channel before anything else, on 3.10 and on 4.3).
So a queue without a leader would stop all models of the channel. Here it stops a scout, and its own requests wait or
are refused as `window` has it. What comes right after a scout's message was taken goes by the main channel, which then
finds the leader at once, and from then on all does. Replies come over the main channel either way.

Beside `outbox`, which publishes. One for each main channel; ends with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import NamedTuple

from modelmq.amqp import Channel, Settled
from modelmq.amqp.confirms import Then
from modelmq.errors import BrokerError, ChannelClosed

MOST_SCOUTS = 64
"""Channels at one time; where so many wait for a leader, other queues that have taken nothing yet wait as well."""
FRESH_S = 1.0
"""How long a queue that took a scout's message is known to have a leader."""


class Sender(NamedTuple):
    """A channel to publish by, and the address that its requests must carry."""

    channel: Channel
    reply_to: str


Open = Callable[[], Awaitable[Sender]]
OnRefused = Callable[[ChannelClosed], None]


class Scouts:
    """Of one main channel."""

    def __init__(
        self,
        main: Sender,
        open_: Open | None,
        on_room: Callable[[str], None],
        on_refused: OnRefused | None = None,
    ) -> None:
        """`open_` makes a scout or raises BrokerError; None: all goes by the main channel, come what may.

        `on_room` hears of a queue that `sender` had nothing for and now may have something. `on_refused` hears why the
        broker closed a scout, which it would have done to the main channel.
        """
        self._main = main
        self._open = open_
        self._on_room = on_room
        self._on_refused = on_refused
        self._loop = asyncio.get_running_loop()
        self._known: set[str] = set()
        """Queues that the main channel has sent something to."""
        self._taken: dict[str, float] = {}
        """Other queues that have taken something from a scout, and when last."""
        self._out: set[str] = set()
        """Queues that a scout has a message under way to."""
        self._waiting: dict[str, None] = {}
        """Queues that a scout is wanted for, in this order."""
        self._free: list[Sender] = []
        self._all: set[Channel] = set()
        self._opening: asyncio.Task[None] | None = None
        main.channel.closed.add_done_callback(self._end)

    def sender(self, queue: str) -> Sender | None:
        """What a message to this queue may go by now; None until `on_room`."""
        if self._open is None or queue in self._known:
            return self._main
        if queue in self._out:
            return None
        taken_s = self._taken.get(queue)
        if taken_s is not None and self._loop.time() - taken_s < FRESH_S:
            return self._main
        if self._free and (not self._waiting or next(iter(self._waiting)) == queue):
            return self._free[-1]
        self._waiting[queue] = None
        self._open_more()
        return None

    def sent(self, queue: str, sender: Sender) -> None:
        """A message to this queue went by what `sender` had for it."""
        if sender is not self._main:
            self._free.remove(sender)
            self._waiting.pop(queue, None)
            self._out.add(queue)
        elif self._open is not None and queue not in self._known:
            self._known.add(queue)
            self._taken.pop(queue, None)

    def hears(self, queue: str, sender: Sender, then: Then) -> Then:
        """What is to hear of the verdict on that message, so that `then` does."""
        return then if sender is self._main else partial(self._on_settled, queue, sender, then)

    def _on_settled(self, queue: str, sender: Sender, then: Then, settled: Settled) -> None:
        self._out.remove(queue)
        if settled is Settled.ACKED:
            self._taken[queue] = self._loop.time()
        if settled is Settled.NACKED:
            sender.channel.leave()  # it may have asked a leader that is gone, and go on to (see `refusals`)
        elif settled is not Settled.LOST:
            self._free.append(sender)
        then(settled)
        self._serve()

    def _serve(self) -> None:
        """Who waits first gets what is free; one that is wanted by nobody is kept for the next."""
        while self._waiting and self._free:
            queue = next(iter(self._waiting))
            self._on_room(queue)
            self._waiting.pop(queue, None)  # also when nothing is left of what it was wanted for
        while len(self._free) > 1:
            self._free.pop().channel.leave()
        self._open_more()

    def _open_more(self) -> None:
        wanted = self._waiting and not self._free and len(self._all) < MOST_SCOUTS
        if wanted and self._opening is None and self._open is not None:
            self._opening = asyncio.create_task(self._opened(self._open))

    async def _opened(self, open_: Open) -> None:
        try:
            scout = await open_()
        except BrokerError:
            # The connection is gone, or has no channel left for this: better by the main channel than not at all.
            self._known.update(self._waiting)
            waiting, self._waiting, self._opening = self._waiting, {}, None
            for queue in waiting:
                self._on_room(queue)
            return
        self._opening = None
        self._all.add(scout.channel)
        self._free.append(scout)
        scout.channel.closed.add_done_callback(partial(self._on_closed, scout))
        if self._main.channel.closed.done():
            scout.channel.leave()
        self._serve()

    def _on_closed(self, scout: Sender, closed: asyncio.Future[BrokerError | None]) -> None:
        self._all.discard(scout.channel)
        if scout in self._free:
            self._free.remove(scout)
        error = closed.result()
        if isinstance(error, ChannelClosed) and self._on_refused is not None:
            self._on_refused(error)
        elif error is None:
            self._open_more()

    def _end(self, _: asyncio.Future[BrokerError | None]) -> None:
        self._waiting.clear()
        for channel in self._all:
            channel.leave()
