"""The aio-pika side: one plain (not robust) connection, the way its own RPC example works, without its robust layer.

aio-pika's public calls are all used as documented; acknowledgements are one `multiple` per turn of the loop, as on
the other sides.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aio_pika
from aio_pika.abc import AbstractIncomingMessage

from benchmarks.clients.aiormq_client import DIRECT_REPLY_TO, acknowledge_once_per_turn
from benchmarks.clients.drive import Address, Ask


@asynccontextmanager
async def asking(address: Address) -> AsyncIterator[Ask]:
    """One connection, one channel with confirms, answers over direct reply-to."""
    connection = await aio_pika.connect(address.url)
    async with connection:
        channel = await connection.channel(publisher_confirms=True)
        exchange = await channel.get_exchange(address.exchange, ensure=False)
        replies = await channel.get_queue(DIRECT_REPLY_TO, ensure=False)
        pending: dict[str, asyncio.Future[bytes]] = {}

        async def on_reply(message: AbstractIncomingMessage) -> None:
            future = pending.pop(str(message.correlation_id), None)
            if future is not None and not future.done():
                future.set_result(message.body)

        await replies.consume(on_reply, no_ack=True)
        loop = asyncio.get_running_loop()

        async def ask(request_id: str, body: bytes) -> bytes:
            reply: asyncio.Future[bytes] = loop.create_future()
            pending[request_id] = reply
            await exchange.publish(
                aio_pika.Message(
                    body,
                    content_type="application/json",
                    delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
                    correlation_id=request_id,
                    message_id=request_id,
                    reply_to=DIRECT_REPLY_TO,
                    headers={"deadline": int((time.time() + 30) * 1000)},
                ),
                routing_key=address.routing_key,
                mandatory=True,
            )
            return await reply

        yield ask


@asynccontextmanager
async def echoing(address: Address, prefetch: int) -> AsyncIterator[None]:
    """Answers every delivery on the channel that read it, then acknowledges."""
    connection = await aio_pika.connect(address.url)
    async with connection:
        channel = await connection.channel(publisher_confirms=False)
        await channel.set_qos(prefetch_count=prefetch)
        queue = await channel.get_queue(address.queue, ensure=False)
        acknowledge = acknowledge_once_per_turn(await channel.get_underlay_channel())

        async def on_request(message: AbstractIncomingMessage) -> None:
            await channel.default_exchange.publish(
                aio_pika.Message(
                    message.body,
                    content_type="application/json",
                    correlation_id=message.correlation_id,
                    message_id=message.message_id,
                ),
                routing_key=message.reply_to or "",
                mandatory=False,
            )
            acknowledge(message.delivery_tag or 0)

        await queue.consume(on_request)
        yield
