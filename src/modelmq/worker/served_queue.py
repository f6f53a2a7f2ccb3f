"""One model as the broker sees it: two lane queues, all its versions behind them.

Consumes while any version is alive, gives each message to intake and the request to its version. A model whose
versions have all failed is not consumed, so that its messages wait for others or for better times.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from typing import NamedTuple

from modelmq.amqp import Connection
from modelmq.control import LaneReport
from modelmq.errors import BrokerError, NotFound
from modelmq.events import ConsumerEnded, Emit, MessageRefused, QueueMissing
from modelmq.messages import LANES, Lane
from modelmq.runtimes import ModelSource
from modelmq.settings import WorkerSettings
from modelmq.topology_names import ModelRoute, queue_name
from modelmq.worker import answers, intake
from modelmq.worker.confirmed import ConfirmedPublisher
from modelmq.worker.depth import Counted
from modelmq.worker.drops import flush
from modelmq.worker.intake import Clock, Refusal, Rules
from modelmq.worker.item import Message, WorkItem
from modelmq.worker.lane import LaneChannel, LaneOf
from modelmq.worker.outcome import UNWANTED, refusal
from modelmq.worker.proving import ProvingPublisher
from modelmq.worker.served_version import ServedVersion
from modelmq.worker.standing import keep
from modelmq.worker.tombstones import Name

ADVICE = "run modelmq topology apply"
BATCHES_HELD = 2
"""Batches a lane may hold: one in the model's process and one that is ready for it."""


class Surroundings(NamedTuple):
    """What every queue of a worker shares."""

    settings: WorkerSettings
    emit: Emit
    confirmed: ConfirmedPublisher
    proving: ProvingPublisher
    rules: Rules
    changed: Callable[[], None]
    """Called when the state of any version changed."""
    gone: Callable[[str], None]
    """Called with an address to which no reply could be brought."""


Opened = Mapping[Lane, LaneChannel]


class ServedQueue:
    """The lanes of one model. `attach` for each new connection, after `open` if it takes over; `drain` at the end."""

    def __init__(self, sources: Sequence[ModelSource], around: Surroundings) -> None:
        first = sources[0]
        self.model = first.name
        self._route = ModelRoute(name=first.name, queue=first.settings.queue, routing_key=first.settings.routing_key)
        self.versions: Mapping[str, ServedVersion] = {
            source.version: ServedVersion(source, around.settings, around.emit, self)
            for source in sorted(sources, key=lambda source: int(source.version))
        }
        self.missing: set[str] = set()
        """Lane queues that the broker did not let us consume at the last try."""
        self._newest_first = tuple(reversed(self.versions.values()))
        self._around = around
        self._connection: Connection | None = None
        self._stopping: asyncio.Event | None = None
        self._lanes: dict[Lane, LaneChannel] = {}
        """Those that are consumed now."""
        self._tasks: dict[asyncio.Task[None], Connection] = {}
        self._draining = False

    @property
    def settled(self) -> bool:
        """Whether each version has loaded or failed to, at least once."""
        return all(version.tried for version in self._newest_first)

    @property
    def alive(self) -> bool:
        """Whether any version can serve, now or as soon as its process is back."""
        return any(version.state != "failed" for version in self._newest_first)

    @property
    def prefetch(self) -> int:
        """Messages per lane. How many rows one has is unknown before it is read, so each counts as one row."""
        largest = max(version.max_rows if version.signature.batched else 1 for version in self._newest_first)
        return BATCHES_HELD * largest

    async def open(self, connection: Connection) -> Opened:
        """The lanes that are consumed now, consumed over this connection as well, before it takes over.

        Raises BrokerError, with nothing left of it.
        """
        opened: dict[Lane, LaneChannel] = {}
        try:
            for lane in tuple(self._lanes):
                opened[lane] = await self._opened(connection, lane)
        except BrokerError:
            await self.abandon(opened)
            raise
        return opened

    async def abandon(self, opened: Opened) -> None:
        """Give back at once what came over these."""
        for channel in opened.values():
            await self._retire(channel, 0.0)

    def attach(self, connection: Connection, opened: Opened) -> None:
        """Consume over this connection from now on, by what is opened and more; the one before, if any, is left."""
        if self._stopping is not None:
            self._stopping.set()
        self._stopping = None
        self._connection = connection
        self._update(opened)
        if self._stopping is None:
            self._spawn(self.abandon(opened), connection)

    async def left(self, connection: Connection) -> None:
        """Wait until nothing is held over this connection any more."""
        while tasks := [task for task, of in self._tasks.items() if of is connection]:
            await asyncio.wait(tasks)

    @property
    def lanes(self) -> tuple[LaneChannel, ...]:
        """Those that are consumed now."""
        return tuple(self._lanes.values())

    def full(self) -> Iterator[str]:
        """The queues that gave all they may since they were last known to be empty, so that more may wait there."""
        return (queue_name(self._route, lane) for lane, channel in self._lanes.items() if channel.was_full)

    def emptied(self, counted: Counted) -> None:
        """Depths of this very moment: what is empty is not full any more."""
        for lane, channel in self._lanes.items():
            if counted.get(queue_name(self._route, lane)) == 0:
                channel.seen_empty()

    def report(self, counted: Counted) -> Iterator[LaneReport]:
        """What waits and what is held, per lane that is not empty; `counted` are depths of this very moment."""
        for lane in LANES:
            channel = self._lanes.get(lane)
            if channel is None or not channel.open:
                yield LaneReport(self.model, lane, None)
                continue
            ready = counted.get(queue_name(self._route, lane), None if channel.was_full else 0)
            if ready != 0 or channel.held:
                yield LaneReport(self.model, lane, ready, channel.requests, round(channel.per_message, 2))

    def changed(self) -> None:
        """A version's state changed: start or stop consuming."""
        self._update()
        self._around.changed()

    def orphaned(self, version: ServedVersion, items: Sequence[WorkItem]) -> None:
        """Requests for a version that failed: refused while others are served; else their lanes give them back."""
        if self.alive:
            answer = refusal(answers.unavailable(version.source, version.reason))
            for item in items:
                item.origin.settle(item.delivery, item.reply_to, answer)
            flush(items)

    async def writable(self) -> None:
        """Wait while the connection asks to pause."""
        connection = self._connection
        if connection is not None and not connection.writable:
            try:
                await connection.drain()
            except BrokerError:
                return

    def withdraw(self, unwanted: Callable[[Name], bool]) -> None:
        """Nobody waits for these requests any more, as far as they are here."""
        for version in self._newest_first:
            version.withdraw(unwanted)

    async def drain(self) -> None:
        """Take no more, finish what is held within `worker.drain_s`, give back the rest."""
        self._draining = True
        for version in self._newest_first:
            version.hurry()
        self._update()
        while self._tasks:
            await asyncio.wait(list(self._tasks))

    def _update(self, opened: Opened | None = None) -> None:
        """Make consuming what it should be."""
        wanted = self.settled and self.alive and not self._draining
        connection = self._connection
        if wanted and self._stopping is None and connection is not None and not connection.closed.done():
            stopping = asyncio.Event()
            for lane in LANES:
                self._spawn(self._consume(connection, lane, stopping, (opened or {}).get(lane)), connection)
            self._stopping = stopping
        elif not wanted and self._stopping is not None:
            self._stopping.set()
            self._stopping = None

    def _spawn(self, work: Coroutine[None, None, None], connection: Connection) -> None:
        task = asyncio.create_task(work)
        self._tasks[task] = connection
        task.add_done_callback(self._tasks.pop)

    async def _consume(
        self, connection: Connection, lane: Lane, stopping: asyncio.Event, opened: LaneChannel | None
    ) -> None:
        """Keep one lane consumed until told to stop or until the connection is lost."""
        queue = queue_name(self._route, lane)

        async def attempt() -> None:
            nonlocal opened
            channel, opened = opened or await self._opened(connection, lane), None
            if stopping.is_set():  # meanwhile another connection has taken over, or no version is left
                await self.abandon({lane: channel})
                return
            self._lanes[lane] = channel
            self.missing.discard(queue)
            self._around.changed()
            await _first(channel.ended, stopping)
            if channel.ended_by_broker:
                self._around.emit(ConsumerEnded(queue, channel.ended_by_broker))
            if self._lanes.get(lane) is channel:  # else another connection has taken over
                del self._lanes[lane]
            # Aside, because after a cancel by the broker the next attempt must not wait for what is held.
            self._spawn(self._retire(channel, self._around.settings.drain_s), connection)

        def refused(error: BrokerError, retry_in_s: float) -> None:
            if queue not in self.missing:
                self.missing.add(queue)
                self._around.changed()
            self._around.emit(QueueMissing(queue, f"{ADVICE} ({error.message})", retry_in_s))

        await keep(attempt, refused, stopping)
        if opened is not None:  # told to stop before the first attempt
            await self.abandon({lane: opened})

    async def _opened(self, connection: Connection, lane: Lane) -> LaneChannel:
        around = self._around
        opened, replies = await connection.channel(), around.rules.replies
        of = LaneOf(self.model, lane)
        channel = LaneChannel(of, opened, around.confirmed, around.proving, replies, self._accept, around.gone)
        await channel.consume(queue_name(self._route, lane), self.prefetch)
        return channel

    async def _retire(self, channel: LaneChannel, grace_s: float) -> None:
        """At once when the channel is gone or the model failed; else what is held is finished first."""
        if channel.open:
            await channel.retire(grace_s if self.alive else 0.0)
        for version in self._newest_first:
            version.remove(lambda item: item.origin is channel)

    def _accept(self, messages: Sequence[Message], channel: LaneChannel) -> None:
        """The requests of one delivery: each admitted to its version, or refused at once."""
        if not self.alive:  # they go back when the lane is closed, which is under way
            return
        clock = Clock(time.monotonic(), time.time())
        source = intake.Source(channel, channel.lane)
        any_refused = False
        for message in messages:
            admitted = intake.admit(message, source, self._resolve, self._around.rules, clock)
            if isinstance(admitted, Refusal):
                self._refuse(message, channel, admitted)
                any_refused = True
            else:
                version, item = admitted
                version.add(item)
        if any_refused:
            channel.flush()

    def _refuse(self, delivery: Message, channel: LaneChannel, refused: Refusal[ServedVersion]) -> None:
        answer = refused.answer
        channel.settle(delivery, refused.reply_to, answer)
        self._around.emit(MessageRefused(intake.log_id(delivery), self.model, answer.code, answer.error))
        if refused.target is not None and answer.outcome in UNWANTED:
            refused.target.drops.tell({answer.outcome.value: 1})

    def _resolve(self, wanted: str | None) -> ServedVersion:
        """The version asked for; else the newest that has not failed. Raises NotFound, Unavailable."""
        if wanted is None:
            return next(version for version in self._newest_first if version.state != "failed")
        version = self.versions.get(wanted)
        if version is None:
            known = ", ".join(self.versions)
            raise NotFound(f'Model {self.model} has no version "{wanted}"; it has {known}.')
        if version.state == "failed":
            raise answers.unavailable(version.source, version.reason)
        return version


async def _first(*events: asyncio.Event) -> None:
    """Wait until one of them is set."""
    tasks = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
