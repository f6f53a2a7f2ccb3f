"""A producer with pika: publisher confirms, a durable reply queue, and nothing of ModelMQ.

What the broker confirmed is accepted, and must come to an end that this caller or the checker sees. Replies are acked
after they are on record; one whose id had a reply before is told apart.
"""

from __future__ import annotations

import asyncio
import random
import time
from itertools import cycle

import pika
from pika.adapters.asyncio_connection import AsyncioConnection
from pika.channel import Channel
from pika.spec import Basic, BasicProperties

from tests.chaos import ledger
from tests.chaos.callers.caller import Caller
from tests.chaos.question import Question, answer_of, body_of, code_of_error

_EXCHANGE = "ml-model-exchange"
_AGAIN_S = (0.1, 0.5)
_PREFETCH = 100
_SILENT_S = 6.0
"""What was sent to a consumer may be lost between two nodes that lost one another, and is not sent again by 3.10."""
_RETURNED = "returned"


async def run(caller: Caller) -> None:
    """Until told to end."""
    producer = _Producer(caller)
    connecting = asyncio.create_task(producer.keep_connected())
    pausing = asyncio.create_task(producer.obey_pauses())
    watching = asyncio.create_task(producer.watch_replies())
    try:
        await caller.run(producer.ask, producer.ready)
    finally:
        connecting.cancel()
        pausing.cancel()
        watching.cancel()
        producer.close()


class _Producer:
    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self._connection: AsyncioConnection | None = None
        self._channel: Channel | None = None
        self._consumer = ""
        self._heard_s = 0.0
        self._lost = asyncio.Event()
        self._unconfirmed: dict[int, str] = {}
        self._tag = 0
        self._answered: set[str] = set()

    def ready(self) -> bool:
        return self._channel is not None and self._channel.is_open

    async def ask(self, question: Question) -> None:
        """Publish; what becomes of it is told by the broker, later."""
        channel = self._channel
        if channel is None or not channel.is_open:
            self._caller.settled(question.id, "returned")  # never sent
            return
        deadline_ms = int((time.time() + question.deadline - time.monotonic()) * 1000)
        properties = BasicProperties(
            content_type="application/json",
            correlation_id=question.id,
            message_id=question.id,
            reply_to=self._caller.plan.reply_queue,
            delivery_mode=2,
            headers={"deadline": deadline_ms},
        )
        self._tag += 1
        self._unconfirmed[self._tag] = question.id
        channel.basic_publish(_EXCHANGE, question.model, body_of(question), properties, mandatory=True)

    async def keep_connected(self) -> None:
        urls = cycle(self._caller.plan.url.split())
        while True:
            self._lost.clear()
            parameters = pika.URLParameters(next(urls))
            parameters.heartbeat = self._caller.plan.heartbeat_s
            self._connection = AsyncioConnection(
                parameters,
                on_open_callback=lambda connection: connection.channel(on_open_callback=self._on_channel),
                on_open_error_callback=lambda *_: self._lost.set(),
                on_close_callback=lambda *_: self._lost.set(),
            )
            await self._lost.wait()
            self._forget()
            await asyncio.sleep(random.uniform(*_AGAIN_S))

    async def obey_pauses(self) -> None:
        """While paused, replies are left in the queue."""
        caller = self._caller
        while True:
            await caller.paused.wait()
            if self._consumer and self.ready():
                assert self._channel is not None
                self._channel.basic_cancel(self._consumer)
            self._consumer = ""
            while caller.paused.is_set():  # noqa: ASYNC110 - an asyncio event tells only of its being set
                await asyncio.sleep(0.05)
            if self.ready():
                self._consume()

    async def watch_replies(self) -> None:
        """A consumer on a cluster that hears nothing for long, while answers are due, gets another connection."""
        while len(self._caller.plan.url.split()) > 1:
            await asyncio.sleep(1.0)
            due = self._consumer and self._caller.in_flight and self.ready()
            if due and time.monotonic() - self._heard_s > _SILENT_S:
                self._caller.given_up += 1
                self._hang_up()

    def close(self) -> None:
        if self._connection is not None and self._connection.is_open:
            self._connection.close()

    def _forget(self) -> None:
        """The connection is gone: of what was not confirmed nobody knows whether the broker has it."""
        self._channel, self._consumer = None, ""
        unconfirmed, self._unconfirmed = self._unconfirmed, {}
        for id_ in unconfirmed.values():
            self._caller.settled(id_, "lost")

    def _on_channel(self, channel: Channel) -> None:
        self._tag = 0
        channel.confirm_delivery(self._on_confirm)
        channel.add_on_return_callback(self._on_return)
        channel.add_on_close_callback(lambda *_: self._hang_up())
        channel.add_on_cancel_callback(lambda *_: self._hang_up())
        channel.basic_qos(prefetch_count=_PREFETCH)
        self._channel = channel
        if not self._caller.paused.is_set():
            self._consume()

    def _hang_up(self) -> None:
        if self._connection is not None and self._connection.is_open:
            self._connection.close()

    def _consume(self) -> None:
        assert self._channel is not None
        self._heard_s = time.monotonic()
        self._consumer = self._channel.basic_consume(self._caller.plan.reply_queue, self._on_reply)

    def _on_confirm(self, frame: pika.frame.Method) -> None:
        settled = "confirmed" if isinstance(frame.method, Basic.Ack) else "nacked"
        tag: int = frame.method.delivery_tag
        tags = [each for each in self._unconfirmed if each <= tag] if frame.method.multiple else [tag]
        for each in tags:
            id_ = self._unconfirmed.pop(each, "")
            if id_:
                self._caller.settled(id_, settled)  # type: ignore[arg-type]

    def _on_return(self, channel: Channel, method: object, properties: BasicProperties, body: bytes) -> None:
        """Comes before its confirm, which then means nothing."""
        for tag, id_ in self._unconfirmed.items():
            if id_ == properties.correlation_id:
                self._unconfirmed[tag] = ""
        self._caller.settled(properties.correlation_id, "returned")

    def _on_reply(self, channel: Channel, method: Basic.Deliver, properties: BasicProperties, body: bytes) -> None:
        self._heard_s = time.monotonic()
        id_ = properties.correlation_id or ""
        code = code_of_error(properties.headers)
        again = id_ in self._answered and self._caller.plan.mutation != "no-dedup"
        self._answered.add(id_)
        said = answer_of(body) if not code else ("" if code in ("expired", "dead") else body[:200].decode())
        self._caller.ended(id_, code or ledger.OK, said, again=again)
        channel.basic_ack(method.delivery_tag)
