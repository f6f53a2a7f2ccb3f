"""The requester when the broker fails it: connections cut, exchanges missing, alarms, wrong passwords."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any
from zlib import crc32

import msgspec
import pytest

from modelmq.amqp import ConnectionOptions, Credentials, Delivery, Endpoint, Properties, connect
from modelmq.broker.node import NodeSpec, RunningNode, start
from modelmq.client import requester, window
from modelmq.errors import Expired, Overloaded, Unavailable
from modelmq.events import BrokerBlocked, BrokerConnected, BrokerDisconnected, ReplyUnmatched
from modelmq.messages import MODEL_EXCHANGE
from tests.nodes import order

pytestmark = pytest.mark.broker

QUEUE = "ml-model.echo.interactive"


def through(vhost: Any, port: int, **changes: Any) -> ConnectionOptions:
    return msgspec.structs.replace(vhost.options("test-asker"), endpoints=(Endpoint("127.0.0.1", port),), **changes)


@pytest.mark.both_reply_modes
async def test_a_connection_cut_with_200_in_flight_loses_none(
    broker: Any, asking: Any, cut: Any, vhost: Any, results_of: Any
) -> None:
    await broker.provision()
    await broker.echo(answering=False)
    asker = await asking(options=through(vhost, cut.port), confirm_timeout_s=10.0)
    tasks = asker.start(200)
    await broker.requests.count(200)
    cut.break_off()
    await broker.requests.count(400)
    first, second = broker.requests.items[:200], broker.requests.items[200:]
    ids = [delivery.properties.correlation_id for delivery in first]
    assert sorted(ids) == sorted(delivery.properties.correlation_id for delivery in second)
    assert len(set(ids)) == 200
    for delivery in broker.requests.items:  # the addresses of the first ones lead nowhere any more
        broker.answer(delivery, delivery.body)
    assert await results_of(tasks) == [b"%d" % number for number in range(200)]
    assert asker.of(ReplyUnmatched) == []


async def twenty_wait(broker: Any, asking: Any) -> tuple[Any, Any, list[Any]]:
    """A requester, its connection, and what it asked, which nobody answers."""
    await broker.provision()
    await broker.echo(answering=False)
    asker = await asking()
    asked = asker.start(20)
    await broker.requests.count(20)
    (shard,) = asker.requester._shards
    return asker, shard, asked


@pytest.mark.both_reply_modes
async def test_a_channel_is_replaced_and_what_went_by_it_is_answered_by_it(
    broker: Any, asking: Any, results_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However late: nothing is sent again."""
    monkeypatch.setattr("modelmq.client.shard.HAND_OVER_S", 0.0)
    asker, shard, before = await twenty_wait(broker, asking)
    old = shard._outbox.channel
    shard._renew()
    shard._renew()
    assert len(shard._renewing) == 1
    async with asyncio.timeout(30):
        while shard._outbox.channel is old:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0)
    after = asker.start(20)
    await broker.requests.count(40)
    assert len({delivery.properties.reply_to for delivery in broker.requests.items}) == 2
    assert not old.closed.done()
    for delivery in broker.requests.items:
        broker.answer(delivery, delivery.body)
    assert await results_of(before) == await results_of(after) == [b"%d" % number for number in range(20)]
    await asyncio.wait_for(asyncio.shield(old.closed), 30)


async def test_where_no_more_channels_may_be_what_waits_on_an_old_one_is_sent_again(
    broker: Any, asking: Any, results_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a queue that a channel cannot reach would be out of reach for as long as another model computes."""
    monkeypatch.setattr("modelmq.client.shard.HAND_OVER_S", 0.0)
    monkeypatch.setattr("modelmq.client.shard._MOST_WAYS", 2)
    asker, shard, asked = await twenty_wait(broker, asking)
    old = shard._outbox.channel
    shard._renew()
    await broker.requests.count(40)
    for delivery in broker.requests.items[20:]:
        broker.answer(delivery, delivery.body)
    assert await results_of(asked) == [b"%d" % number for number in range(20)]
    await asyncio.wait_for(asyncio.shield(old.closed), 30)
    assert len(shard._ways) == 1
    assert len(broker.requests.items) == 40
    assert len(asker.of(BrokerConnected)) == 1


@pytest.mark.both_reply_modes
async def test_under_load_every_request_is_answered_across_cuts(broker: Any, asking: Any, cut: Any, vhost: Any) -> None:
    await broker.provision()
    await broker.echo()
    asker = await asking(options=through(vhost, cut.port), confirm_timeout_s=10.0)
    numbers = iter(range(6000))
    answered: Counter[int] = Counter()

    async def one_after_another() -> None:
        for number in numbers:
            assert await asker.ask(b"%d" % number) == b"%d" % number
            answered[number] += 1
            if number in (1000, 3000, 5000):
                cut.break_off()

    await asyncio.gather(*(one_after_another() for _ in range(200)))
    assert answered == Counter(range(6000))
    assert len(asker.of(BrokerDisconnected)) >= 3


@pytest.mark.both_reply_modes
async def test_what_must_not_run_twice_ends_with_its_connection(
    broker: Any, asking: Any, cut: Any, vhost: Any, results_of: Any
) -> None:
    await broker.provision()
    await broker.echo(answering=False)
    asker = await asking(options=through(vhost, cut.port), confirm_timeout_s=10.0)
    tasks = asker.start(5, idempotent=False)
    await broker.requests.count(5)
    cut.break_off()
    results = await results_of(tasks)
    assert all(isinstance(result, Unavailable) and "lost" in result.message for result in results)
    await asker.connected(2)
    broker.answering = True
    assert await asker.ask(b"next", idempotent=False) == b"next"
    assert len(broker.requests.items) == 6


async def test_while_the_connection_stays_away_only_what_was_taken_waits_for_it(
    broker: Any, asking: Any, cut: Any, vhost: Any, results_of: Any
) -> None:
    await broker.provision()
    await broker.echo(answering=False)
    asker = await asking(options=through(vhost, cut.port), confirm_timeout_s=0.5)
    taken, impatient = asker.start(5), asker.start(5, timeout_s=1.5)
    await broker.requests.count(10)
    await confirmed(asker)
    await cut.cut()
    assert all(isinstance(result, Expired) for result in await results_of(impatient))
    with pytest.raises(Unavailable, match="refused the connection") as told:
        await asker.ask()
    assert told.value.retry_after_s
    assert not asker.requester.status()[0]
    assert asker.requester.in_flight == 5
    broker.answering = True
    await cut.mend()
    assert await results_of(taken) == [b"%d" % number for number in range(5)]
    assert await asker.ask(b"again") == b"again"


async def test_a_question_waits_for_a_connection_that_is_being_made(broker: Any, asking: Any) -> None:
    await broker.provision()
    await broker.echo()
    asker = await asking(wait=False, confirm_timeout_s=10.0)
    assert await asker.ask(b"early") == b"early"


async def test_a_deadline_before_the_connection_is_expired(asking: Any, cut: Any, vhost: Any) -> None:
    await cut.cut()
    asker = await asking(wait=False, options=through(vhost, cut.port), confirm_timeout_s=10.0)
    with pytest.raises(Expired):
        await asker.ask(timeout_s=0.1)


async def test_cancelled_before_it_was_sent_it_never_is(broker: Any, asking: Any, cut: Any, vhost: Any) -> None:
    await broker.provision()
    await broker.echo()
    await cut.cut()
    asker = await asking(wait=False, options=through(vhost, cut.port), confirm_timeout_s=30.0)
    (task,) = asker.start(1)
    await asker.events.until(lambda: asker.of(BrokerDisconnected))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await cut.mend()
    assert await asker.ask(b"other") == b"other"
    assert [each.body for each in broker.requests.items] == [b"other"]


@pytest.mark.both_brokers
@pytest.mark.parametrize("unconfirmed", [None, window.LIMIT])
async def test_a_missing_exchange_is_told_with_its_remedy_and_found_later(
    broker: Any, asking: Any, unconfirmed: int | None
) -> None:
    asker = await asking(unconfirmed=unconfirmed)
    for _ in range(2):
        with pytest.raises(Unavailable, match=r"run modelmq topology apply.*no exchange 'ml-model-exchange'"):
            await asker.ask()
    ready, words = asker.requester.status()
    assert not ready
    assert "topology apply" in words
    await broker.provision()
    await broker.echo()
    async with asyncio.timeout(30):
        while True:
            try:
                assert await asker.ask(b"at last") == b"at last"
                break
            except Unavailable:
                await asyncio.sleep(0.02)  # the channel comes back by itself, and tells nobody
    assert asker.requester.status()[0]


@pytest.mark.both_reply_modes
async def test_a_refused_channel_leaves_other_connections_alone(broker: Any, asking: Any, results_of: Any) -> None:
    """One channel dies of a message to an exchange that is not there; the other connection's request is answered."""
    await broker.provision(control=False)
    names = [f"m{number}" for number in range(50)]
    first, second = (next(name for name in names if crc32(name.encode()) % 2 == shard) for shard in range(2))
    for model in (first, second):
        await broker.channel.bind_queue(QUEUE, MODEL_EXCHANGE, model)
    await broker.echo(answering=False)
    asker = await asking(connections=2)
    doomed, spared = asker.start(1, model=first), asker.start(1, model=second)
    await broker.requests.count(2)
    assert asker.requester.say_hello("g")
    (error,) = await results_of(doomed)
    assert isinstance(error, Unavailable)
    assert "ml-control-exchange" in error.message
    ready, words = asker.requester.status()
    assert not ready
    assert words.startswith("1 of 2 connections")
    for delivery in broker.requests.items:
        broker.answer(delivery, b"fine")
    assert await results_of(spared) == [b"fine"]


@pytest.mark.both_brokers
@pytest.mark.parametrize(("unconfirmed", "model"), [(None, "echo"), (window.LIMIT, "echo"), (window.LIMIT, "first")])
async def test_a_message_that_closes_the_channel_is_not_sent_again(
    broker: Any, asking: Any, results_of: Any, unconfirmed: int | None, model: str
) -> None:
    """RabbitMQ takes no CC header of this type. What it had confirmed before is asked again and answered.

    The first to a queue may go by another channel.
    """
    await broker.provision()
    await broker.channel.bind_queue(QUEUE, MODEL_EXCHANGE, "first")
    await broker.echo(answering=False)
    asker = await asking(confirm_timeout_s=10.0, unconfirmed=unconfirmed)
    waiting = asker.start(3)
    await broker.requests.count(3)
    await confirmed(asker)
    with pytest.raises(Unavailable, match="RabbitMQ closed the channel: 406"):
        await asker.ask(b"poison", model=model, headers={"CC": 7})
    await broker.requests.count(6)
    for delivery in broker.requests.items[3:]:
        broker.answer(delivery, delivery.body)
    assert await results_of(waiting) == [b"0", b"1", b"2"]
    assert all(each.body != b"poison" for each in broker.requests.items)


async def confirmed(asker: Any) -> None:
    """Until the broker has confirmed everything, which changes nothing that anybody is told of."""
    async with asyncio.timeout(30):
        while any(entry.state != "confirmed" for entry in asker.requester._shards[0]._pending):  # noqa: ASYNC110
            await asyncio.sleep(0.005)  # nobody is told when it happens


async def test_a_wrong_password_is_told(asking: Any, vhost: Any) -> None:
    options = msgspec.structs.replace(vhost.options(), credentials=lambda: Credentials(vhost.username, "wrong"))
    asker = await asking(wait=False, options=options, confirm_timeout_s=0.1)
    await asker.events.until(lambda: asker.of(BrokerDisconnected))
    with pytest.raises(Unavailable, match="refused the user"):
        await asker.ask()


async def test_an_alarm_is_unavailable_at_once_and_passes(tmp_path: Path, asking: Any) -> None:
    """On a node of its own: alarms hit everybody on a node."""
    node = await asyncio.to_thread(start, NodeSpec(tmp_path / "node"))
    try:
        options = ConnectionOptions(
            endpoints=(Endpoint("127.0.0.1", node.amqp_port),),
            credentials=lambda: Credentials(node.admin_username, node.admin_password),
        )
        asker = await asking(options=options, confirm_timeout_s=0.5)
        worker = await connect(options)
        channel = await worker.channel()
        await channel.declare_exchange(MODEL_EXCHANGE, "direct", durable=True)
        queue = await channel.declare_queue(exclusive=True)
        await channel.bind_queue(queue, MODEL_EXCHANGE, "echo")
        await asyncio.to_thread(set_memory_limit, node, "0.0000001")
        # The broker tells only those who publish, so the first one may have to wait for a confirm that does not come.
        with pytest.raises(Unavailable, match=r"confirm|short of memory"):
            await asker.ask()
        await asker.events.until(lambda: asker.of(BrokerBlocked))
        (refused,) = asker.start(1)
        await asyncio.sleep(0)
        assert refused.done()
        with pytest.raises(Unavailable, match="short of memory or disk"):
            await refused
        assert asker.requester.say_hello("g") is False
        assert asker.requester.status()[0] is False
        await asyncio.to_thread(set_memory_limit, node, "0.9")
        await asker.events.until(lambda: any(not event.blocked for event in asker.of(BrokerBlocked)))

        def on_request(delivery: Delivery) -> None:
            properties = Properties(correlation_id=delivery.properties.correlation_id)
            channel.publish("", delivery.properties.reply_to or "", properties, delivery.body)

        await channel.consume(queue, on_request, no_ack=True)
        assert await asker.ask(b"yes") == b"yes"
        await asker.requester.stop()
        await worker.close()
    finally:
        await asyncio.to_thread(node.stop)


def set_memory_limit(node: RunningNode, share: str) -> None:
    """What rabbitmqctl calls."""
    order(node.directory, f"vm_memory_monitor:set_vm_memory_high_watermark({share}).")


async def test_no_more_wait_for_an_answer_than_may(
    broker: Any, asking: Any, results_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requester, "MAX_IN_FLIGHT", 3)
    await broker.provision()
    await broker.echo(answering=False)
    asker = await asking()
    tasks = asker.start(5)
    await broker.requests.count(3)
    for delivery in broker.requests.items:
        broker.answer(delivery, delivery.body)
    results = await results_of(tasks)
    assert results[:3] == [b"0", b"1", b"2"]
    assert all(isinstance(result, Overloaded) and result.retry_after_s for result in results[3:])
