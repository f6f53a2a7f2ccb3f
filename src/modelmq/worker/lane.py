"""One consumer's channel: the messages it brought, their replies and their acks, always in this order.

The last station of a request. A reply is written before its ack on the same channel, so the broker cannot see the ack
first; what must be stored is confirmed before it is acked. Delivery tags belong to this channel and die with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import msgspec

from modelmq import bundles
from modelmq.amqp import AckTracker, Channel, Delivery, Properties, Settled
from modelmq.bundles import BUNDLE, LARGEST_PART_BYTES, ReplyPart
from modelmq.errors import BrokerError, ChannelClosed
from modelmq.messages import JSON, STATUS_HEADER, Lane
from modelmq.retry_ladder import queue_of
from modelmq.topology_names import dead_letter_queue
from modelmq.worker import dead_letter, retry
from modelmq.worker.confirmed import ConfirmedPublisher
from modelmq.worker.item import Message
from modelmq.worker.outcome import VERDICTS, Answer, Later
from modelmq.worker.parts import Part, messages_of
from modelmq.worker.proving import ProvingPublisher
from modelmq.worker.reply_address import ReplyRules

_LATEST = 0.02
"""Share of the newest message in the average of requests per message."""
REQUEUE_DELAY_S = 1.0
"""Pause before a message goes back whose dead letter or reply the broker did not take."""


class _Reply(NamedTuple):
    """One broker message to a reply address, and the requests that are done with once it is written."""

    to: str
    properties: Properties
    body: bytes
    answers: Sequence[Message]


class LaneOf(NamedTuple):
    """One of a model's lanes."""

    model: str
    lane: Lane


class LaneChannel:
    """The messages of one lane queue that this worker holds. An `Origin`."""

    def __init__(
        self,
        of: LaneOf,
        channel: Channel,
        confirmed: ConfirmedPublisher,
        proving: ProvingPublisher,
        replies: ReplyRules,
        accept: Callable[[Sequence[Message], LaneChannel], None],
        gone: Callable[[str], None],
    ) -> None:
        self.lane: Lane = of.lane
        self.open = True
        self.held = 0
        """Messages."""
        self.was_full = False
        """Whether the broker gave all it may at some time since its queue was last seen empty."""
        self.per_message = 1.0
        """Requests in a message, on average of the latest."""
        self.ended = asyncio.Event()
        """No more messages come: the channel closed, or the consumer was cancelled, by us or by the broker."""
        self.ended_by_broker = ""
        """Why, where it was the broker that ended only this."""
        self._channel = channel
        self._letters = dead_letter_queue(of.model)
        self._confirmed = confirmed
        self._proving = proving
        self._replies = replies
        self._accept = accept
        # Only where nothing is answered directly: direct replies come back from some brokers though they arrived.
        self._mandatory = replies.mode == "queue"
        channel.on_returned = lambda returned: gone(returned.routing_key)
        self._tracker = AckTracker()
        self._unsettled: dict[int, int] = {}
        """Of each bundle held, by its tag: parts without an outcome."""
        self._wanted_back: set[int] = set()
        """Bundles of which a part goes back to the queue, and so the whole once all parts have an outcome."""
        self._gathered: dict[str, list[tuple[Part, Answer]]] = {}
        """Replies to parts, by reply address."""
        self._empty = asyncio.Event()
        self._consumer_tag = ""
        self._prefetch = 0
        channel.closed.add_done_callback(self._on_closed)

    @property
    def requests(self) -> int:
        """How many are held, in messages of one or of many."""
        return self.held - len(self._unsettled) + sum(self._unsettled.values())

    def seen_empty(self) -> None:
        """Nothing waits in the queue at this moment."""
        self.was_full = self.held >= self._prefetch

    async def consume(self, queue: str, prefetch: int) -> None:
        """Start the deliveries. Raises ChannelClosed when the queue is absent or not ours to read."""
        self._prefetch = prefetch
        await self._channel.qos(prefetch)
        self._consumer_tag = await self._channel.consume(queue, self._on_delivery, on_cancelled=self._on_cancelled)

    def settle(self, delivery: Message, reply_to: str, answer: Answer) -> None:
        """Dead-letter, reply, ack or requeue, as the verdict says; after the channel is gone, nothing."""
        if not self.open:
            return
        verdict = VERDICTS[answer.outcome]
        if verdict.requeue:
            self._requeue(delivery)
        elif verdict.dead_letter:
            self._dead_letter(delivery, reply_to, answer)
        elif verdict.retry and answer.later is not None:
            self._put_off(delivery, answer.error, answer.later)
        elif verdict.reply and reply_to:
            self._answer(delivery, reply_to, answer)
        else:
            self._done(delivery)

    def flush(self, *, at_once: bool = False) -> None:
        """Send the gathered replies, then ack all that is settled, with as few frames as the broker allows."""
        if self._gathered:
            gathered, self._gathered = self._gathered, {}
            for reply_to, answers in gathered.items():
                for start, end in bundles.chunks([len(answer.body) for _, answer in answers]):
                    self._reply(_joined(reply_to, answers[start:end]))
        try:
            for tag, multiple in self._tracker.take():
                self._channel.ack(tag, multiple=multiple)
        except BrokerError:
            self._lost()
        if at_once:
            self._channel.connection.flush()

    async def retire(self, grace_s: float) -> None:
        """Take no more, wait until what is held is settled, give back the rest, close. Never raises BrokerError."""
        with contextlib.suppress(BrokerError):
            if not self.ended.is_set():
                await self._channel.cancel(self._consumer_tag)
                self.ended.set()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._until_empty(), grace_s)
            self.flush()
            if self.open and self.held:
                self._channel.nack(0, multiple=True, requeue=True)
            await self._channel.close()
        self._lost()

    async def _until_empty(self) -> None:
        while self.open and self.held:
            self._empty.clear()
            await self._empty.wait()

    def _on_delivery(self, delivery: Delivery) -> None:
        self._tracker.delivered(delivery.delivery_tag)
        self.held += 1
        if self.held >= self._prefetch:
            self.was_full = True
        messages = messages_of(delivery)
        self.per_message += (len(messages) - self.per_message) * _LATEST
        if len(messages) > 1:
            self._unsettled[delivery.delivery_tag] = len(messages)
        self._accept(messages, self)

    def _on_cancelled(self, _consumer_tag: str) -> None:
        self.ended_by_broker = "RabbitMQ cancelled the consumer."
        self.ended.set()

    def _on_closed(self, closed: asyncio.Future[BrokerError | None]) -> None:
        reason = closed.result()
        if isinstance(reason, ChannelClosed) and not self.ended_by_broker:
            self.ended_by_broker = reason.message
        self._lost()

    def _lost(self) -> None:
        """Nothing is held any more: the broker takes back all that is not acked."""
        self.open = False
        self.held = 0
        self.was_full = False
        self._unsettled.clear()
        self._wanted_back.clear()
        self._gathered.clear()
        self.ended.set()
        self._empty.set()

    def _done(self, delivery: Message) -> None:
        tag = delivery.delivery_tag
        if not self._is_last(tag):
            return
        if tag in self._wanted_back:
            self._give_back(tag)
        else:
            self._tracker.settle(tag)
            self._released()

    def _is_last(self, tag: int) -> bool:
        """Whether this outcome is the last that its delivery waited for, as the only one of a single message is."""
        left = self._unsettled.pop(tag, 1) - 1
        if left:
            self._unsettled[tag] = left
        return not left

    def _released(self) -> None:
        self.held -= 1
        if self.held <= 0:
            self._empty.set()

    def _requeue(self, delivery: Message) -> None:
        if not self.open:
            return
        if self._is_last(delivery.delivery_tag):
            self._give_back(delivery.delivery_tag)
        else:
            self._wanted_back.add(delivery.delivery_tag)

    def _give_back(self, tag: int) -> None:
        self._wanted_back.discard(tag)
        self._tracker.forget(tag)
        with contextlib.suppress(BrokerError):
            self._channel.nack(tag, requeue=True)
            self._released()

    def _answer(self, delivery: Message, reply_to: str, answer: Answer) -> None:
        """A reply of its own at once; one to a part waits for those to its siblings, unless it is large."""
        if type(delivery) is Part and len(answer.body) <= LARGEST_PART_BYTES:
            self._gathered.setdefault(reply_to, []).append((delivery, answer))
        else:
            self._reply(_Reply(reply_to, _reply_properties(delivery, answer), answer.body, (delivery,)))

    def _reply(self, reply: _Reply) -> None:
        to, properties, body, _ = reply
        exchange = self._replies.exchange
        if self._replies.may_be_durable(to):
            properties.delivery_mode = 2
            then = partial(self._after_reply, reply)
            self._confirmed.publish(to, exchange, to, properties, body, then)
            return
        if not self._proving.proven(to):
            self._proving.publish(to, properties, body, lambda settled: self._after_reply(reply, settled))
            return
        try:
            self._channel.publish(exchange, to, properties, body, mandatory=self._mandatory)
        except BrokerError:
            self._lost()
            return
        for delivery in reply.answers:
            self._done(delivery)

    def _after_reply(self, reply: _Reply, settled: Settled) -> None:
        if not self.open:
            return
        # Returned: the caller's queue is gone, or its address a bad one; nobody is left to answer.
        taken = settled in (Settled.ACKED, Settled.RETURNED)
        for delivery in reply.answers:
            if taken:
                self._done(delivery)
            else:
                self._requeue_later(delivery)
        self.flush()

    def _dead_letter(self, delivery: Message, reply_to: str, answer: Answer) -> None:
        def stored(settled: Settled) -> None:
            if not self.open:
                return
            if settled is not Settled.ACKED:
                self._requeue_later(delivery)
            elif reply_to:
                self._answer(delivery, reply_to, answer)
                self.flush()
            else:
                self._done(delivery)
                self.flush()

        letter = dead_letter.copy_of(delivery, answer, time.time())
        self._confirmed.publish(self._letters, *letter, stored)

    def _put_off(self, delivery: Message, why: str, later: Later) -> None:
        """Into the first of its delay queues that takes it; then it is that message which is answered one day."""

        def stored(settled: Settled) -> None:
            if not self.open:
                return
            longer = later.rungs_ms[1:]
            if settled is Settled.ACKED:
                self._done(delivery)
                self.flush()
            elif settled is Settled.NACKED and longer:
                self._put_off(delivery, why, msgspec.structs.replace(later, rungs_ms=longer))
            else:
                self._requeue_later(delivery)

        self._confirmed.publish(queue_of(later.rungs_ms[0]), *retry.copy_of(delivery, why, later), stored)

    def _requeue_later(self, delivery: Message) -> None:
        asyncio.get_running_loop().call_later(REQUEUE_DELAY_S, self._requeue, delivery)


def _joined(reply_to: str, answers: Sequence[tuple[Part, Answer]]) -> _Reply:
    """One message for these replies; for one alone that of a single request."""
    parts = [part for part, _ in answers]
    if len(answers) == 1:
        ((part, answer),) = answers
        return _Reply(reply_to, _reply_properties(part, answer), answer.body, parts)
    body = bundles.encode(
        [ReplyPart(part.properties.correlation_id or "", answer.code, answer.body) for part, answer in answers]
    )
    return _Reply(reply_to, Properties(content_type=BUNDLE), body, parts)


def _reply_properties(delivery: Message, answer: Answer) -> Properties:
    headers = {STATUS_HEADER: answer.code} if answer.code else None
    return Properties(content_type=JSON, correlation_id=delivery.properties.correlation_id, headers=headers)
