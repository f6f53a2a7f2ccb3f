"""ModelMQ's side: the Requester that the gateway uses, against an echo over the same AMQP client.

As a gateway does once the workers have said that they take them, what is asked in one turn of the loop shares a
message; the replies to it do so too.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from benchmarks.clients.drive import Address, Ask
from modelmq import bundles
from modelmq.amqp import Delivery, Properties, connect, options_from_url
from modelmq.bundles import BUNDLE, ReplyPart
from modelmq.client.requester import Request, Requester
from modelmq.events import ignore
from modelmq.messages import JSON, MODEL_EXCHANGE

TIMEOUT_S = 30.0
BUNDLE_LIMIT = 31
"""What a worker that answers 4,000 requests per second at a batch size of 64 says; faster ones say more."""


@asynccontextmanager
async def asking(address: Address, bundle_limit: int = BUNDLE_LIMIT) -> AsyncIterator[Ask]:
    """As the gateway asks: mandatory, confirmed, answers over direct reply-to, with a deadline."""
    if address.exchange != MODEL_EXCHANGE:
        raise ValueError(f"The Requester publishes to {MODEL_EXCHANGE} only.")
    requester = Requester(options_from_url(address.url), service="bench", emit=ignore)
    await requester.start()
    try:
        await requester.up()

        async def ask(request_id: str, body: bytes) -> bytes:
            deadline_s = time.time() + TIMEOUT_S
            request = Request(
                address.routing_key, body, deadline_s, message_id=request_id, bundle_limit=bundle_limit
            )  # fmt: skip
            return await requester.ask(request)

        yield ask
    finally:
        await requester.stop()


@asynccontextmanager
async def echoing(address: Address, prefetch: int) -> AsyncIterator[None]:
    """Answers every request on the channel that read it, then acknowledges, as the worker does."""
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
            if asked.content_type == BUNDLE:
                replies = [
                    ReplyPart(part.correlation_id, "", part.body) for part in bundles.decode_requests(delivery.body)
                ]
                channel.publish("", asked.reply_to or "", Properties(content_type=BUNDLE), bundles.encode(replies))
            else:
                properties = Properties(content_type=JSON, delivery_mode=1, correlation_id=asked.correlation_id)
                channel.publish("", asked.reply_to or "", properties, delivery.body)
            if last == 0:  # deliveries are answered in order here: the last tag of a turn stands for all before it
                loop.call_soon(acknowledge)
            last = delivery.delivery_tag

        await channel.consume(address.queue, on_request)
        yield
    finally:
        await connection.close()
