"""ModelMQ's side: the Requester that the gateway uses, against an echo over the same AMQP client."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from benchmarks.clients.bare_client import echoing
from benchmarks.clients.drive import Address, Ask
from modelmq.amqp import options_from_url
from modelmq.client.requester import Request, Requester
from modelmq.events import ignore
from modelmq.messages import MODEL_EXCHANGE

__all__ = ["asking", "echoing"]

TIMEOUT_S = 30.0


@asynccontextmanager
async def asking(address: Address) -> AsyncIterator[Ask]:
    """As the gateway asks: mandatory, confirmed, answers over direct reply-to, with a deadline."""
    if address.exchange != MODEL_EXCHANGE:
        raise ValueError(f"The Requester publishes to {MODEL_EXCHANGE} only.")
    requester = Requester(options_from_url(address.url), service="bench", emit=ignore)
    await requester.start()
    try:
        await requester.up()

        async def ask(request_id: str, body: bytes) -> bytes:
            return await requester.ask(
                Request(address.routing_key, body, time.time() + TIMEOUT_S, message_id=request_id)
            )

        yield ask
    finally:
        await requester.stop()
