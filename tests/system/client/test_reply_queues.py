"""The requester where replies go to queues: its own queue, and what becomes of it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from modelmq.amqp import Delivery, connect
from modelmq.client.replies import Rights
from modelmq.errors import ChannelClosed
from modelmq.events import BrokerDisconnected
from modelmq.messages import REPLY_EXCHANGE

pytestmark = [pytest.mark.broker, pytest.mark.parametrize("reply_mode", ["queue"], indirect=True)]


def address_of(request: Delivery) -> str:
    return request.properties.reply_to or ""


async def code_of(vhost: Any, queue: str) -> int:
    """What the broker says to somebody else who asks for the queue; 0 for nothing against it."""
    connection = await connect(vhost.options("test-look"))
    try:
        await (await connection.channel()).declare_queue(queue, passive=True)
    except ChannelClosed as error:
        return error.reply_code
    finally:
        await connection.close()
    return 0


@pytest.mark.both_brokers
async def test_each_connection_has_a_queue_of_its_own_that_ends_with_it(broker: Any, asking: Any, vhost: Any) -> None:
    await broker.provision()
    await broker.echo()
    first, second = await asking(), await asking(rights=Rights("queue"))
    assert [await first.ask(b"1"), await second.ask(b"2"), await first.ask(b"3")] == [b"1", b"2", b"3"]
    named, brokers, again = map(address_of, broker.requests.items)
    assert named == again
    assert named.startswith("ml-gateway.test.")
    assert len(named) >= len("ml-gateway.test.") + 32, "whoever guesses it may read along"
    assert brokers.startswith("amq.gen-")
    assert [await code_of(vhost, queue) for queue in (named, brokers)] == [405, 405], "they are exclusive"
    await first.requester.stop()
    await second.requester.stop()
    assert [await code_of(vhost, queue) for queue in (named, brokers)] == [404, 404]


@pytest.mark.both_brokers
async def test_after_a_lost_connection_there_is_another_queue(broker: Any, asking: Any, vhost: Any) -> None:
    await broker.provision()
    await broker.echo(answering=False)
    asker = await asking(confirm_timeout_s=10.0)
    (task,) = asker.start(1)
    (before,) = await broker.requests.count(1)
    asker.requester._shards[0]._link.connection.abort()
    _, after = await broker.requests.count(2)
    assert address_of(after) != address_of(before)
    broker.answer(before, b"too late")
    broker.answer(after, b"in time")
    assert await task == b"in time"
    assert await code_of(vhost, address_of(before)) == 404


async def test_a_queue_that_the_broker_takes_away_is_replaced(broker: Any, asking: Any) -> None:
    await broker.provision()
    await broker.echo(answering=False)
    asker = await asking(confirm_timeout_s=10.0)
    (task,) = asker.start(1)
    (before,) = await broker.requests.count(1)
    channel = await asker.requester._shards[0]._link.connection.channel()
    await channel.delete_queue(address_of(before))
    _, after = await broker.requests.count(2)
    assert address_of(after) != address_of(before)
    broker.answer(after, b"answered")
    assert await task == b"answered"
    assert asker.of(BrokerDisconnected) == []


async def test_a_missing_exchange_is_told_with_its_remedy_and_found_later(broker: Any, asking: Any) -> None:
    await broker.provision(replies=False)
    asker = await asking(wait=False)
    await asker.events.until(lambda: bool(asker.of(BrokerDisconnected)))
    reason = asker.of(BrokerDisconnected)[0].reason
    assert "No reply queue can be had, run modelmq topology apply with the same topology.reply_mode (" in reason
    assert "404 NOT_FOUND - no exchange 'ml-reply-exchange'" in reason
    assert asker.requester.status()[0] is False
    await broker.channel.declare_exchange(REPLY_EXCHANGE, "direct", durable=True)
    await broker.echo()
    await asyncio.wait_for(asker.requester.up(), 30)
    assert await asker.ask(b"now") == b"now"
