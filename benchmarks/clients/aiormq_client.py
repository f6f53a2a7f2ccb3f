"""The aiormq side: its fastest documented way.

`wait=False` skips the wait for the socket's drain under aiormq's publish lock, and acknowledgements are one `multiple`
for all that a turn of the loop answered: both are faster than the defaults and just as safe here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiormq
from aiormq.abc import AbstractChannel, DeliveredMessage

from benchmarks.clients.drive import Address, Ask

DIRECT_REPLY_TO = "amq.rabbitmq.reply-to"


@asynccontextmanager
async def asking(address: Address) -> AsyncIterator[Ask]:
    """One connection, one channel with confirms, answers over direct reply-to."""
    connection = await aiormq.connect(address.url)
    try:
        channel = await connection.channel(publisher_confirms=True)
        pending: dict[str, asyncio.Future[bytes]] = {}

        async def on_reply(message: DeliveredMessage) -> None:
            future = pending.pop(str(message.header.properties.correlation_id), None)
            if future is not None and not future.done():
                future.set_result(message.body)

        await channel.basic_consume(DIRECT_REPLY_TO, on_reply, no_ack=True)
        loop = asyncio.get_running_loop()

        async def ask(request_id: str, body: bytes) -> bytes:
            reply: asyncio.Future[bytes] = loop.create_future()
            pending[request_id] = reply
            await channel.basic_publish(
                body,
                exchange=address.exchange,
                routing_key=address.routing_key,
                mandatory=True,
                properties=aiormq.spec.Basic.Properties(
                    content_type="application/json",
                    delivery_mode=2,
                    correlation_id=request_id,
                    message_id=request_id,
                    reply_to=DIRECT_REPLY_TO,
                    headers={"deadline": int((time.time() + 30) * 1000)},
                ),
                wait=False,
            )
            return await reply

        yield ask
    finally:
        await connection.close()


@asynccontextmanager
async def echoing(address: Address, prefetch: int) -> AsyncIterator[None]:
    """Answers every delivery on the channel that read it, then acknowledges."""
    connection = await aiormq.connect(address.url)
    try:
        channel = await connection.channel(publisher_confirms=False)
        await channel.basic_qos(prefetch_count=prefetch)
        acknowledge = acknowledge_once_per_turn(channel)

        async def on_request(message: DeliveredMessage) -> None:
            asked = message.header.properties
            await channel.basic_publish(
                message.body,
                routing_key=str(asked.reply_to),
                properties=aiormq.spec.Basic.Properties(
                    content_type="application/json",
                    delivery_mode=1,
                    correlation_id=asked.correlation_id,
                    message_id=asked.message_id,
                ),
                wait=False,
            )
            acknowledge(message.delivery_tag or 0)

        await channel.basic_consume(address.queue, on_request)
        yield
    finally:
        await connection.close()


def acknowledge_once_per_turn(channel: AbstractChannel) -> Callable[[int], None]:
    """Deliveries are answered in order here, so the last tag of a turn stands for all before it."""
    loop = asyncio.get_running_loop()
    last = 0
    acks: set[Awaitable[None]] = set()

    def flush() -> None:
        nonlocal last
        ack = asyncio.ensure_future(channel.basic_ack(last, multiple=True, wait=False))
        acks.add(ack)
        ack.add_done_callback(acks.discard)
        last = 0

    def acknowledge(delivery_tag: int) -> None:
        nonlocal last
        if last == 0:
            loop.call_soon(flush)
        last = max(last, delivery_tag)

    return acknowledge
