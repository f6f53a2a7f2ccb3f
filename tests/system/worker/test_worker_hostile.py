"""A worker on a real broker, flooded by pika with messages that mean it ill, and good ones between them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from decimal import Decimal
from random import Random
from typing import Any

import msgspec
import pika
import pytest

from modelmq.events import MessageRefused
from modelmq.messages import MODEL_EXCHANGE, REPLY_EXCHANGE, ReplyMode
from tests import hostile

from .conftest import Asker, body_of

pytestmark = [pytest.mark.broker, pytest.mark.both_reply_modes]
Async = Callable[..., Awaitable[Any]]

MESSAGES, GOOD_EVERY = 600, 10
VICTIMS = ("victim", "jobs.", " amq.gen-me", "AMQ.GEN-me")


def raw(value: Any) -> Any:
    """As pika writes it: bytes where a text is none; it has no floats."""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    if isinstance(value, dict):
        return {raw(name): raw(each) for name, each in value.items()}
    if isinstance(value, list):
        return [raw(each) for each in value]
    return Decimal("0.5") if isinstance(value, float) else value


def flood(url: str, seed: int, reply_mode: ReplyMode) -> dict[str, float]:
    """Publish all of it; the answers to the good ones by their ids."""
    chance, answers = Random(seed), {}
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        address = channel.queue_declare("", exclusive=True).method.queue
        if reply_mode == "queue":
            channel.queue_bind(address, REPLY_EXCHANGE, address)
        for victim in VICTIMS:
            channel.queue_declare(victim)
        channel.confirm_delivery()

        def on_reply(_channel: Any, _method: Any, properties: pika.BasicProperties, body: bytes) -> None:
            answers[properties.correlation_id] = msgspec.json.decode(body)["outputs"][0]["data"][0]

        channel.basic_consume(address, on_reply, auto_ack=True)
        for number in range(MESSAGES):
            key, fields, body = hostile.message(chance)
            if fields.get("reply_to") != hostile.DIRECT:  # RabbitMQ refuses it of whoever does not listen
                fields = {name: raw(each) for name, each in fields.items()}
                if "timestamp" in fields:
                    fields["timestamp"] = int(fields["timestamp"].timestamp())
                properties = pika.BasicProperties(delivery_mode=2, **fields)
                channel.basic_publish(MODEL_EXCHANGE, key, body, properties)
            if number % GOOD_EVERY == 0:
                good = pika.BasicProperties(reply_to=address, correlation_id=str(number))
                channel.basic_publish(MODEL_EXCHANGE, "m", body_of(float(number)), good)
        end = time.monotonic() + 30
        while len(answers) < MESSAGES // GOOD_EVERY and time.monotonic() < end:
            connection.process_data_events(0.1)
    return answers


async def test_good_requests_are_answered_in_a_flood_of_hostile_messages(
    make_model: Callable[..., None],
    declare: Async,
    start_worker: Async,
    asker: Asker,
    vhost: Any,
    reply_mode: ReplyMode,
) -> None:
    seed = 4
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    make_model("m")
    await declare()
    worker = await start_worker(reply_prefixes=("jobs",) if reply_mode == "queue" else ())
    answers = await asyncio.to_thread(flood, vhost.url, seed, reply_mode)
    assert answers == {str(n): 2.0 * n for n in range(0, MESSAGES, GOOD_EVERY)}, f"seed {seed}"
    assert (await asker.ask("m", 4.0)).values == [8.0]
    codes = {event.code for event in worker.of(MessageRefused)}
    assert {"invalid", "unsupported", "expired"} <= codes
    assert "failed" not in codes, [event for event in worker.of(MessageRefused) if event.code == "failed"][:3]
    await worker.stop()
    # What a worker holds at its end goes back, so an empty queue means that all was settled.
    for queue in ("ml-model.m.interactive", "ml-model.m.bulk", "ml-dead-letter.m", *VICTIMS):
        left, _ = await asker.channel.count_queue(queue)
        assert left == 0, f"{queue}, seed {seed}"
    assert told == []
