"""One consumer's channel: the messages it brought, their replies and their acks, always in this order.

The last station of a request. A reply is written before its ack on the same channel, so the broker cannot see the ack
first; what must be stored is confirmed before it is acked. Delivery tags belong to this channel and die with it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from modelmq.amqp import AckTracker, Channel, Delivery, Properties, Settled
from modelmq.errors import BrokerError
from modelmq.messages import DEFAULT_EXCHANGE, JSON, STATUS_HEADER, Lane
from modelmq.worker import dead_letter, reply_address
from modelmq.worker.confirmed import ConfirmedPublisher
from modelmq.worker.outcome import VERDICTS, Answer
from modelmq.worker.proving import ProvingPublisher

REQUEUE_DELAY_S = 1.0
"""Pause before a message goes back whose dead letter or reply the broker did not take."""


class LaneChannel:
    """The messages of one lane queue that this worker holds. An `Origin`."""

    def __init__(
        self,
        lane: Lane,
        channel: Channel,
        confirmed: ConfirmedPublisher,
        proving: ProvingPublisher,
        accept: Callable[[Delivery, LaneChannel], None],
    ) -> None:
        self.lane: Lane = lane
        self.open = True
        self.held = 0
        self.ended = asyncio.Event()
        """No more messages come: the channel closed, or the broker cancelled the consumer."""
        self._channel = channel
        self._confirmed = confirmed
        self._proving = proving
        self._accept = accept
        self._tracker = AckTracker()
        self._empty = asyncio.Event()
        self._consumer_tag = ""
        channel.closed.add_done_callback(lambda _: self._lost())

    async def consume(self, queue: str, prefetch: int) -> None:
        """Start the deliveries. Raises ChannelClosed when the queue is absent or not ours to read."""
        await self._channel.qos(prefetch)
        self._consumer_tag = await self._channel.consume(queue, self._on_delivery, on_cancelled=self._on_cancelled)

    def settle(self, delivery: Delivery, reply_to: str, answer: Answer) -> None:
        """Dead-letter, reply, ack or requeue, as the verdict says; after the channel is gone, nothing."""
        if not self.open:
            return
        verdict = VERDICTS[answer.outcome]
        if verdict.requeue:
            self._requeue(delivery)
        elif verdict.dead_letter:
            self._dead_letter(delivery, reply_to, answer)
        elif verdict.reply and reply_to:
            self._reply(delivery, reply_to, answer)
        else:
            self._done(delivery)

    def flush(self) -> None:
        """Ack everything settled since the last flush, with as few frames as the broker allows."""
        try:
            for tag, multiple in self._tracker.take():
                self._channel.ack(tag, multiple=multiple)
        except BrokerError:
            self._lost()

    async def retire(self, grace_s: float) -> None:
        """Take no more, wait until what is held is settled, give back the rest, close. Never raises BrokerError."""
        with contextlib.suppress(BrokerError):
            if not self.ended.is_set():
                await self._channel.cancel(self._consumer_tag)
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
        self._accept(delivery, self)

    def _on_cancelled(self, _consumer_tag: str) -> None:
        self.ended.set()

    def _lost(self) -> None:
        self.open = False
        self.held = 0
        self.ended.set()
        self._empty.set()

    def _done(self, delivery: Delivery) -> None:
        self._tracker.settle(delivery.delivery_tag)
        self._released()

    def _released(self) -> None:
        self.held -= 1
        if self.held <= 0:
            self._empty.set()

    def _requeue(self, delivery: Delivery) -> None:
        if not self.open:
            return
        self._tracker.forget(delivery.delivery_tag)
        with contextlib.suppress(BrokerError):
            self._channel.nack(delivery.delivery_tag, requeue=True)
            self._released()

    def _reply(self, delivery: Delivery, reply_to: str, answer: Answer) -> None:
        properties = _reply_properties(delivery, answer)
        if reply_address.may_be_durable(reply_to):
            properties.delivery_mode = 2
            self._confirmed.publish(
                DEFAULT_EXCHANGE,
                reply_to,
                properties,
                answer.body,
                lambda settled: self._after_reply(delivery, settled),
            )
            return
        if not self._proving.proven(reply_to):
            self._proving.publish(
                reply_to, properties, answer.body, lambda settled: self._after_reply(delivery, settled)
            )
            return
        try:
            self._channel.publish(DEFAULT_EXCHANGE, reply_to, properties, answer.body)
        except BrokerError:
            self._lost()
            return
        self._done(delivery)

    def _after_reply(self, delivery: Delivery, settled: Settled) -> None:
        if not self.open:
            return
        # Returned: the caller's queue is gone, or its address a bad one; nobody is left to answer.
        if settled in (Settled.ACKED, Settled.RETURNED):
            self._done(delivery)
            self.flush()
        else:
            self._requeue_later(delivery)

    def _dead_letter(self, delivery: Delivery, reply_to: str, answer: Answer) -> None:
        def stored(settled: Settled) -> None:
            if settled is not Settled.ACKED:
                self._requeue_later(delivery)
            elif reply_to:
                self._reply(delivery, reply_to, answer)
                self.flush()
            else:
                self._done(delivery)
                self.flush()

        letter = dead_letter.copy_of(delivery, answer)
        self._confirmed.publish(*letter, stored)

    def _requeue_later(self, delivery: Delivery) -> None:
        asyncio.get_running_loop().call_later(REQUEUE_DELAY_S, self._requeue, delivery)


def _reply_properties(delivery: Delivery, answer: Answer) -> Properties:
    headers = {STATUS_HEADER: answer.code} if answer.code else None
    return Properties(content_type=JSON, correlation_id=delivery.properties.correlation_id, headers=headers)
