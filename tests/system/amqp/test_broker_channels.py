"""What the broker refuses stays in its channel; what it ends is told; what is forged has its own error."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from modelmq.amqp import Properties, Settled
from modelmq.errors import BrokerError, ChannelClosed, ConnectionLost

pytestmark = pytest.mark.broker
PATIENCE_S = 30.0


async def soon(awaitable: Any) -> Any:
    return await asyncio.wait_for(awaitable, PATIENCE_S)


@pytest.fixture
async def connection(vhost: Any, opened: Any) -> Any:
    return await opened(vhost.options())


async def works(channel: Any) -> None:
    """The channel carries a message, confirmed."""
    await channel.confirm_select()
    queue = await channel.declare_queue(exclusive=True)
    got, settled = asyncio.Queue[Any](), asyncio.Queue[Settled]()
    tag = await channel.consume(queue, got.put_nowait)
    channel.publish("", queue, Properties(), b"x", mandatory=True, on_settled=settled.put_nowait)
    assert await soon(settled.get()) is Settled.ACKED
    channel.ack((await soon(got.get())).delivery_tag)
    await channel.cancel(tag)
    await channel.delete_queue(queue)


async def ask_for_a_missing_queue(channel: Any) -> None:
    await channel.declare_queue("missing", passive=True)


async def declare_what_is_the_brokers(channel: Any) -> None:
    await channel.declare_queue("amq.forbidden")


async def take_what_is_anothers(channel: Any) -> None:
    await channel.consume("exclusive-to-another", lambda _: None)


async def redeclare_differently(channel: Any) -> None:
    await channel.declare_queue("kept", durable=True)
    await channel.declare_queue("kept", durable=True, arguments={"x-max-length": 1})


async def acknowledge_what_was_never_delivered(channel: Any) -> None:
    channel.ack(99)
    await channel.declare_queue("kept", durable=True)
    await channel.declare_queue("kept", durable=True)


async def publish_to_a_missing_exchange(channel: Any) -> None:
    channel.publish("missing", "k", Properties(), b"")
    await channel.declare_queue("kept", durable=True)
    await channel.declare_queue("kept", durable=True)


@pytest.mark.both_brokers
@pytest.mark.parametrize(
    ("code", "offend"),
    [
        (404, ask_for_a_missing_queue),
        (403, declare_what_is_the_brokers),
        (405, take_what_is_anothers),
        (406, redeclare_differently),
        (406, acknowledge_what_was_never_delivered),
        (404, publish_to_a_missing_exchange),
    ],
)
async def test_a_refusal_stays_in_its_channel(
    vhost: Any, opened: Any, connection: Any, code: int, offend: Callable[[Any], Awaitable[None]]
) -> None:
    other = await opened(vhost.options())
    await (await other.channel()).declare_queue("exclusive-to-another", exclusive=True)
    neighbour, offender = await connection.channel(), await connection.channel()
    with pytest.raises(ChannelClosed, match=f"RabbitMQ closed the channel: {code} ") as caught:
        await soon(offend(offender))
    assert caught.value.reply_code == code
    assert (await soon(asyncio.shield(offender.closed))).reply_code == code
    for verb in (
        lambda: offender.publish("", "q", Properties(), b""),
        lambda: offender.ack(1),
        lambda: offender.nack(1),
    ):
        with pytest.raises(ChannelClosed) as again:
            verb()
        assert again.value.reply_code == code
    with pytest.raises(ChannelClosed):
        await offender.qos(1)
    await offender.close()
    assert not neighbour.closed.done()
    await works(neighbour)
    again = await connection.channel()
    assert again.number == offender.number
    await works(again)


async def test_publishes_of_a_refused_channel_are_lost_and_told(connection: Any) -> None:
    channel = await connection.channel()
    await channel.confirm_select()
    told: list[Settled] = []
    channel.publish("missing", "k", Properties(), b"", on_settled=told.append)
    channel.publish("", "k", Properties(), b"", on_settled=told.append)
    assert (await soon(asyncio.shield(channel.closed))).reply_code == 404
    assert told == [Settled.LOST, Settled.LOST]


async def test_on_settled_without_confirms_is_a_mistake(connection: Any) -> None:
    channel = await connection.channel()
    with pytest.raises(ValueError, match="confirm_select"):
        channel.publish("", "k", Properties(), b"", on_settled=lambda _: None)
    await works(channel)


@pytest.mark.parametrize("properties", [Properties(message_id="x" * 256), Properties(headers={"k": "x" * 200_000}),
                                        Properties(priority=300), Properties(headers={"k": object()})])  # fmt: skip
async def test_what_cannot_be_written_shifts_no_verdict(connection: Any, properties: Properties) -> None:
    channel = await connection.channel()
    await channel.confirm_select()
    with pytest.raises((ValueError, TypeError)):
        channel.publish("", "k", properties, b"", on_settled=lambda _: None)
    assert len(channel._confirms) == 0
    await works(channel)


@pytest.mark.both_brokers
async def test_a_deleted_queue_cancels_its_consumer(connection: Any) -> None:
    channel, other = await connection.channel(), await connection.channel()
    queue = await channel.declare_queue("q", durable=True)
    cancelled: asyncio.Queue[str] = asyncio.Queue()
    tag = await channel.consume(queue, lambda _: None, on_cancelled=cancelled.put_nowait)
    await other.delete_queue(queue)
    assert await soon(cancelled.get()) == tag
    await works(channel)


async def test_a_cancelled_consumer_hears_nothing_more(connection: Any) -> None:
    channel = await connection.channel()
    queue = await channel.declare_queue(exclusive=True)
    got: list[Any] = []
    tag = await channel.consume(queue, got.append, no_ack=True)
    await channel.cancel(tag)
    channel.publish("", queue, Properties(), b"x")
    await channel.declare_queue(queue, passive=True)
    assert got == []
    assert await channel.purge_queue(queue) == 1


@pytest.mark.both_brokers
async def test_closing_while_deliveries_rain_bothers_nobody(connection: Any, no_complaints: list[Any]) -> None:
    publisher = await connection.channel()
    queue = await publisher.declare_queue("rain", durable=True)
    for _ in range(3_000):
        publisher.publish("", queue, Properties(), b"x")
    for _ in range(20):
        channel = await connection.channel()
        first = asyncio.Event()

        def on_delivery(delivery: Any, channel: Any = channel, first: asyncio.Event = first) -> None:
            channel.ack(delivery.delivery_tag)
            first.set()

        await channel.consume(queue, on_delivery)
        await soon(first.wait())
        await soon(channel.close())
        assert channel.closed.result() is None
        publisher.publish("", queue, Properties(), b"x")
    assert no_complaints == []


async def test_2047_channels_are_opened_used_and_closed(connection: Any) -> None:
    channels = await soon(asyncio.gather(*(connection.channel() for _ in range(2047))))
    assert sorted(channel.number for channel in channels) == list(range(1, 2048))
    with pytest.raises(ChannelClosed, match="All 2047 channels"):
        await connection.channel()
    await works(channels[2046])
    await soon(channels[1000].close())
    again = await connection.channel()
    assert again.number == channels[1000].number
    await works(again)
    await soon(connection.close())
    assert connection.closed.result() is None


async def test_a_channels_number_is_used_again_and_again(connection: Any) -> None:
    numbers = set()
    for _ in range(200):
        channel = await connection.channel()
        numbers.add(channel.number)
        await channel.close()
        await channel.close()
    assert numbers == {1}


@pytest.mark.both_brokers
async def test_direct_reply_to_answers(vhost: Any, opened: Any, connection: Any) -> None:
    asker = await connection.channel()
    replies: asyncio.Queue[Any] = asyncio.Queue()
    await asker.consume("amq.rabbitmq.reply-to", replies.put_nowait, no_ack=True)
    other = await opened(vhost.options())
    worker = await other.channel()
    queue = await worker.declare_queue("rpc", durable=True)

    def answer(delivery: Any) -> None:
        asked = delivery.properties
        worker.publish("", asked.reply_to, Properties(correlation_id=asked.correlation_id), delivery.body.upper())
        worker.ack(delivery.delivery_tag)

    await worker.consume(queue, answer)
    for n in range(100):
        asker.publish("", queue, Properties(reply_to="amq.rabbitmq.reply-to", correlation_id=str(n)), b"ask")
    got = [await soon(replies.get()) for _ in range(100)]
    assert [each.properties.correlation_id for each in got] == [str(n) for n in range(100)]
    assert {each.body for each in got} == {b"ASK"}


async def test_a_forged_reply_address_ends_the_connection_with_its_number(
    vhost: Any, opened: Any, connection: Any
) -> None:
    if not vhost.node.version.startswith("3."):
        pytest.skip("Later brokers drop what is sent to an address nobody has.")
    channel = await connection.channel()
    await channel.confirm_select()
    told: list[Settled] = []
    channel.publish("", "amq.rabbitmq.reply-to.a.b", Properties(), b"", on_settled=told.append)
    reason = await soon(asyncio.shield(connection.closed))
    assert isinstance(reason, ConnectionLost)
    assert (reason.reply_code, "541" in reason.message) == (541, True)
    assert told == [Settled.LOST]
    await works(await (await opened(vhost.options())).channel())


@pytest.mark.parametrize("name", ["x" * 256, "no (such) exchange"])
async def test_names_amqp_does_not_know_are_refused_before_they_are_sent(connection: Any, name: str) -> None:
    channel = await connection.channel()
    with pytest.raises((ValueError, BrokerError)):
        await channel.declare_exchange(name)
    await works(channel)
