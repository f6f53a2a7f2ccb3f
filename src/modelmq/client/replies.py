"""The way back: a shard's reply address, what comes to it, and whom that answers.

Beside `shard`, which sends. Knows the form of replies, single and together, and of workers' reports; not when a
request was sent, nor over what.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Callable

import msgspec

from modelmq import bundles
from modelmq.amqp import Channel, ConnectionOptions, Delivery, Properties
from modelmq.bundles import BUNDLE
from modelmq.client import request as said
from modelmq.client.pending import Pending
from modelmq.client.request import Request
from modelmq.errors import BrokerError, ChannelClosed, InvalidRequest, ModelFailed, RequestError
from modelmq.events import Emit, ReplyUnmatched
from modelmq.messages import DIRECT_REPLY_TO, HELLO_TYPE, REPLY_EXCHANGE, ReplyMode


class Asked(msgspec.Struct, frozen=True):
    """What the table of pending requests keeps for the shell: the question, where it goes, and who waits."""

    request: Request
    key: str
    queue: str
    """As in `request.Route`."""
    answer: asyncio.Future[bytes]


class Rights(msgspec.Struct, frozen=True):
    """What the user who asks may do on the broker, and so how it is answered."""

    reply_mode: ReplyMode = "direct"
    reply_queues: str = ""
    """How the names of the reply queues begin that it may declare; empty: only the broker may name them."""


class Rules(msgspec.Struct, frozen=True):
    """What all shards of a requester share."""

    options: ConnectionOptions
    service: str
    emit: Emit
    confirm_timeout_s: float
    max_in_flight: int
    rights: Rights
    on_report: Callable[[bytes], None] | None
    refused: Callable[[Request], RequestError]
    """What it means that the broker does not take a request."""
    unconfirmed: int | None
    """Messages that one queue may owe a confirm for, before others wait here."""


class Replies:
    """Ends the requests of `pending` as replies tell; `on_report` gets the workers' answers to hello."""

    def __init__(
        self,
        pending: Pending[Asked],
        rights: Rights,
        service: str,
        emit: Emit,
        on_report: Callable[[bytes], None] | None,
    ) -> None:
        self._pending = pending
        self._rights = rights
        self._service = service
        self._emit = emit
        self._on_report = on_report

    async def listen(self, channel: Channel, on_lost: Callable[[], None]) -> str:
        """Take what is answered; the address that requests of this channel must carry. Raises BrokerError.

        `on_lost` is called when the broker takes the address away while the channel lives.
        """
        address = DIRECT_REPLY_TO if self._rights.reply_mode == "direct" else await self._declare(channel)
        await channel.consume(address, self._on_reply, no_ack=True, on_cancelled=lambda _tag: on_lost())
        return address

    async def _declare(self, channel: Channel) -> str:
        """A queue that lives as long as its consumer, at most as long as the connection; a policy bounds it.

        A name is never used twice, as the broker may still hold that of a connection just lost; and nobody guesses it,
        as whoever knows it may bind a queue to the same key.
        """
        beginning = self._rights.reply_queues
        name = f"{beginning}{secrets.token_hex(16)}" if beginning else ""
        try:
            queue = await channel.declare_queue(name, exclusive=True, auto_delete=True)
            await channel.bind_queue(queue, REPLY_EXCHANGE, queue)
        except ChannelClosed as error:
            raise ChannelClosed(said.unanswerable(error), reply_code=error.reply_code) from error
        return queue

    def _on_reply(self, delivery: Delivery) -> None:
        try:
            properties = delivery.properties
        except BrokerError:
            properties = Properties()
        if properties.type == HELLO_TYPE:
            self._on_hello(delivery.body)
            return
        if properties.content_type == BUNDLE:
            self._on_bundle(delivery)
            return
        self._conclude(properties.correlation_id, delivery.body, said.reply_error(properties, delivery))

    def _on_bundle(self, delivery: Delivery) -> None:
        try:
            replies = bundles.decode_replies(delivery.body)
        except ModelFailed:
            self._emit(ReplyUnmatched(self._service, ""))
            return
        for reply in replies:
            error = said.error_told(reply.status, reply.body) if reply.status else None
            self._conclude(reply.correlation_id, reply.body, error)

    def _conclude(self, correlation_id: str | None, body: bytes, error: RequestError | None) -> None:
        """A reply: the end of the request with this id, if it has not ended."""
        entry = self._pending.answered(correlation_id)
        if entry is None:
            self._emit(ReplyUnmatched(self._service, correlation_id or ""))
            return
        answer = entry.payload.answer
        if answer.done():  # cancelled a moment ago
            return
        if error is None:
            answer.set_result(body)
        else:
            answer.set_exception(error)

    def _on_hello(self, body: bytes) -> None:
        if self._on_report is not None:
            with contextlib.suppress(InvalidRequest):
                self._on_report(body)


def fail(asked: Asked, error: RequestError) -> None:
    """Its caller is told, unless it was told something before."""
    if not asked.answer.done():
        asked.answer.set_exception(error)
