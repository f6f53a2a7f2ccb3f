"""The project's AMQP client without anything above it: what a round trip through the broker costs at least."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from benchmarks.clients.drive import Address, Ask
from modelmq.amqp import Delivery, Properties, Settled, connect, options_from_url
from modelmq.messages import DEADLINE_HEADER, DIRECT_REPLY_TO, JSON


@asynccontextmanager
async def asking(address: Address) -> AsyncIterator[Ask]:
    """One connection, one channel with confirms, answers over direct reply-to; done when confirmed and answered."""
    connection = await connect(options_from_url(address.url))
    try:
        channel = await connection.channel()
        await channel.confirm_select()
        pending: dict[str, asyncio.Future[bytes]] = {}

        def on_reply(delivery: Delivery) -> None:
            future = pending.pop(str(delivery.properties.correlation_id), None)
            if future is not None and not future.done():
                future.set_result(delivery.body)

        await channel.consume(DIRECT_REPLY_TO, on_reply, no_ack=True)
        loop = asyncio.get_running_loop()

        async def ask(request_id: str, body: bytes) -> bytes:
            reply: asyncio.Future[bytes] = loop.create_future()
            pending[request_id] = reply
            confirmed: asyncio.Future[Settled] = loop.create_future()
            properties = Properties(
                content_type=JSON,
                delivery_mode=2,
                correlation_id=request_id,
                message_id=request_id,
                reply_to=DIRECT_REPLY_TO,
                headers={DEADLINE_HEADER: int((time.time() + 30) * 1000)},
            )
            channel.publish(
                address.exchange, address.routing_key, properties, body, mandatory=True, on_settled=confirmed.set_result
            )
            settled = await confirmed
            if settled is not Settled.ACKED:
                raise RuntimeError(f"The broker did not take the request: {settled}.")
            return await reply

        yield ask
    finally:
        await connection.close()


@asynccontextmanager
async def echoing(address: Address, prefetch: int) -> AsyncIterator[None]:
    """Answers every delivery on the channel that read it, then acknowledges, as the worker does."""
    connection = await connect(options_from_url(address.url))
    try:
        channel = await connection.channel()
        await channel.qos(prefetch)
        loop = asyncio.get_running_loop()
        last = 0

        def acknowledge() -> None:
            nonlocal last
            channel.ack(last, multiple=True)
            last = 0

        def on_request(delivery: Delivery) -> None:
            nonlocal last
            asked = delivery.properties
            properties = Properties(
                content_type=JSON, delivery_mode=1, correlation_id=asked.correlation_id, message_id=asked.message_id
            )
            channel.publish("", asked.reply_to or "", properties, delivery.body)
            if last == 0:  # deliveries are answered in order here: the last tag of a turn stands for all before it
                loop.call_soon(acknowledge)
            last = delivery.delivery_tag

        await channel.consume(address.queue, on_request)
        yield
    finally:
        await connection.close()
