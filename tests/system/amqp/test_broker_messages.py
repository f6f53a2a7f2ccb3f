"""Messages through a real RabbitMQ: sizes, confirms, returns, refusals, acknowledgements, and cancelled tasks."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from typing import Any

import msgspec
import pytest

from modelmq.amqp import AckTracker, Properties, Settled
from modelmq.errors import ConnectionLost

pytestmark = pytest.mark.broker
PATIENCE_S = 30.0
FRAME_MAX = 8192


async def soon(awaitable: Any) -> Any:
    return await asyncio.wait_for(awaitable, PATIENCE_S)


@pytest.fixture
async def connection(vhost: Any, opened: Any) -> Any:
    return await opened(vhost.options())


@pytest.fixture
async def channel(connection: Any) -> Any:
    made = await connection.channel()
    await made.confirm_select()
    return made


class Verdicts:
    """What became of each publish; `all` waits for the last."""

    def __init__(self, count: int) -> None:
        self.of: dict[int, list[Settled]] = {n: [] for n in range(count)}
        self._open = count
        self._done = asyncio.Event()

    def then(self, n: int) -> Any:
        def told(settled: Settled) -> None:
            self.of[n].append(settled)
            self._open -= 1
            if self._open == 0:
                self._done.set()

        return told

    async def all(self) -> dict[int, Settled]:
        await soon(self._done.wait())
        assert all(len(told) == 1 for told in self.of.values())
        return {n: told[0] for n, told in self.of.items()}


async def collected(channel: Any, queue: str, count: int, **consume: Any) -> list[Any]:
    got: list[Any] = []
    done = asyncio.Event()

    def on_delivery(delivery: Any) -> None:
        got.append(delivery)
        if len(got) >= count:
            done.set()

    tag = await channel.consume(queue, on_delivery, **consume)
    if count:
        await soon(done.wait())
    await channel.cancel(tag)
    return got


@pytest.mark.parametrize(
    "size", [0, 1, *(multiple * (FRAME_MAX - 8) + off for multiple in (1, 2, 3) for off in (-1, 0, 1)), 5_000_000]
)
async def test_bodies_of_every_size_come_back_as_they_left(vhost: Any, opened: Any, size: int) -> None:
    connection = await opened(msgspec.structs.replace(vhost.options(), frame_max=FRAME_MAX))
    channel = await connection.channel()
    queue = await channel.declare_queue(exclusive=True)
    body = random.Random(size).randbytes(size)
    channel.publish("", queue, Properties(), body)
    (delivery,) = await collected(channel, queue, 1, no_ack=True)
    assert (delivery.body == body, delivery.body_size) == (True, size)


async def test_a_body_over_the_limit_is_dropped_with_its_true_size(vhost: Any, opened: Any) -> None:
    connection = await opened(msgspec.structs.replace(vhost.options(), max_body_bytes=100_000))
    channel = await connection.channel()
    queue = await channel.declare_queue(exclusive=True)
    for size in (100_000, 100_001, 1_000_000, 3):
        channel.publish("", queue, Properties(message_id=str(size)), bytes(size))
    got = await collected(channel, queue, 4)
    assert [(each.properties.message_id, len(each.body), each.body_size) for each in got] == [
        ("100000", 100_000, 100_000), ("100001", 0, 100_001), ("1000000", 0, 1_000_000), ("3", 3, 3)
    ]  # fmt: skip


@pytest.mark.both_brokers
async def test_properties_come_back_as_they_left(channel: Any) -> None:
    queue = await channel.declare_queue(exclusive=True)
    sent = Properties(
        content_type="application/json", headers={"deadline": 2**40, "nested": {"list": [1, "x", None, True, 1.5]}},
        delivery_mode=2, priority=3, correlation_id="c", reply_to="r", expiration="60000", message_id="grüße", type="t",
        app_id="a",
    )  # fmt: skip
    channel.publish("", queue, sent, b"")
    (delivery,) = await collected(channel, queue, 1)
    assert delivery.properties == sent
    assert (delivery.exchange, delivery.routing_key, delivery.redelivered) == ("", queue, False)


async def test_a_foreign_header_table_is_read(vhost: Any, channel: Any) -> None:
    """What pika writes, the broker's dead-lettering adds to (x-death: an array of tables) and we read."""
    await channel.declare_exchange("dead", "fanout")
    grave = await channel.declare_queue(exclusive=True)
    await channel.bind_queue(grave, "dead")
    queue = await channel.declare_queue(
        exclusive=True, arguments={"x-dead-letter-exchange": "dead", "x-message-ttl": 0}
    )
    channel.publish("", queue, Properties(headers={"k": "v"}), b"")
    (delivery,) = await collected(channel, grave, 1)
    headers = delivery.properties.headers
    assert headers["k"] == "v"
    assert headers["x-death"][0]["reason"] == "expired"


async def test_thousands_are_confirmed_each_once(channel: Any) -> None:
    queue = await channel.declare_queue(exclusive=True)
    count = 5_000
    verdicts = Verdicts(count)
    for n in range(count):
        channel.publish("", queue, Properties(), b"x", on_settled=verdicts.then(n))
    assert set((await verdicts.all()).values()) == {Settled.ACKED}
    assert len(channel._confirms) == 0
    assert await channel.purge_queue(queue) == count


@pytest.mark.both_brokers
async def test_thousands_through_a_quorum_queue_are_confirmed_each_once(channel: Any) -> None:
    queue = await channel.declare_queue("qq", durable=True, arguments={"x-queue-type": "quorum"})
    count = 2_000
    verdicts = Verdicts(count)
    for n in range(count):
        channel.publish("", queue, Properties(delivery_mode=2), b"x", mandatory=True, on_settled=verdicts.then(n))
    assert set((await verdicts.all()).values()) == {Settled.ACKED}


@pytest.mark.both_brokers
async def test_the_returned_among_many_are_told_to_their_publishers(channel: Any) -> None:
    """Routable and unroutable, mandatory and not, with ids and without, over equal and different keys."""
    queue = await channel.declare_queue(exclusive=True)
    chance = random.Random(1)
    count = 3_000
    verdicts, expected = Verdicts(count), {}
    for n in range(count):
        key = chance.choice([queue, "nowhere", "no-such-queue"])
        mandatory = chance.random() < 0.5
        properties = Properties(message_id=str(n), correlation_id=chance.choice(["a", None]))
        channel.publish("", key, properties, b"x", mandatory=mandatory, on_settled=verdicts.then(n))
        expected[n] = Settled.RETURNED if mandatory and key != queue else Settled.ACKED
    assert await verdicts.all() == expected


async def test_of_equal_messages_only_the_mandatory_one_comes_back(channel: Any) -> None:
    """Nothing but `mandatory` tells them apart, and the broker may return one before it confirms the other."""
    count = 400
    verdicts = Verdicts(count)
    for n in range(count):
        channel.publish("", "nowhere", Properties(), b"x", mandatory=n % 2 == 1, on_settled=verdicts.then(n))
    assert await verdicts.all() == {n: Settled.RETURNED if n % 2 else Settled.ACKED for n in range(count)}


@pytest.mark.both_brokers
async def test_a_full_queue_refuses_and_who_is_refused_hears_it(channel: Any) -> None:
    queue = await channel.declare_queue(exclusive=True, arguments={"x-max-length": 10, "x-overflow": "reject-publish"})
    verdicts = Verdicts(200)
    for n in range(200):
        channel.publish("", queue, Properties(), b"x", on_settled=verdicts.then(n))
    told = Counter((await verdicts.all()).values())
    assert told[Settled.ACKED] >= 10
    assert told[Settled.NACKED] >= 100
    assert told[Settled.ACKED] + told[Settled.NACKED] == 200


@pytest.mark.both_brokers
async def test_prefetch_is_obeyed(connection: Any, channel: Any) -> None:
    queue = await channel.declare_queue("work", durable=True)
    for _ in range(100):
        channel.publish("", queue, Properties(), b"x")
    consumer = await connection.channel()
    await consumer.qos(7)
    got: list[Any] = []
    await consumer.consume(queue, got.append)
    assert await consumer.declare_queue(queue, passive=True) == queue  # a round trip behind the deliveries
    assert len(got) == 7
    consumer.ack(got[-1].delivery_tag, multiple=True)
    async with asyncio.timeout(PATIENCE_S):
        while len(got) < 14:
            await consumer.declare_queue(queue, passive=True)
    assert len(got) == 14


async def test_what_the_tracker_says_drains_the_queue_and_leaves_what_is_open(
    vhost: Any, connection: Any, channel: Any, opened: Any
) -> None:
    queue = await channel.declare_queue("work", durable=True, arguments={"x-queue-type": "quorum"})
    count = 500

    async def publish(ids: range) -> None:
        verdicts = Verdicts(len(ids))
        for at, n in enumerate(ids):
            channel.publish("", queue, Properties(message_id=str(n)), b"x", on_settled=verdicts.then(at))
        await verdicts.all()

    await publish(range(count))
    worker = await opened(vhost.options())
    consumer = await worker.channel()
    await consumer.qos(count)
    acks, tags, came = AckTracker(), [], asyncio.Semaphore(0)

    def on_delivery(delivery: Any) -> None:
        acks.delivered(delivery.delivery_tag)
        tags.append(delivery.delivery_tag)
        came.release()

    await consumer.consume(queue, on_delivery)
    for _ in range(count):
        await soon(came.acquire())
    slow = {3, 250}  # two requests still run; all others are answered, in any order
    settled = [tag for tag in tags if tag not in slow]
    random.Random(2).shuffle(settled)
    for at, tag in enumerate(settled):
        acks.settle(tag)
        if at % 50 == 0 or at == len(settled) - 1:
            for each, multiple in acks.take():
                consumer.ack(each, multiple=multiple)
    # The prefetch lets exactly as many others in as were acknowledged: when they are here, every ack has been obeyed.
    await publish(range(count, count + len(settled)))
    for _ in settled:
        await soon(came.acquire())
    assert not consumer.closed.done()
    worker.abort()
    await soon(asyncio.shield(worker.closed))
    again = await collected(channel, queue, len(settled) + 2)
    ids = sorted(int(each.properties.message_id) for each in again)
    assert ids == [2, 249, *range(count, count + len(settled))]
    assert all(each.redelivered for each in again)
    channel.ack(again[-1].delivery_tag, multiple=True)
    assert await channel.purge_queue(queue) == 0


@pytest.mark.both_brokers
@pytest.mark.parametrize("requeue", [True, False])
async def test_what_is_refused_goes_back_or_away(channel: Any, requeue: bool) -> None:
    queue = await channel.declare_queue(exclusive=True)
    for _ in range(3):
        channel.publish("", queue, Properties(), b"x")
    got = await collected(channel, queue, 3)
    channel.nack(got[-1].delivery_tag, multiple=True, requeue=requeue)
    again = await collected(channel, queue, 3 if requeue else 0, no_ack=True)
    assert [each.redelivered for each in again] == ([True] * 3 if requeue else [])


@pytest.mark.both_brokers
async def test_what_was_unacknowledged_comes_again(connection: Any, channel: Any) -> None:
    queue = await channel.declare_queue("work", durable=True)
    for n in range(10):
        channel.publish("", queue, Properties(message_id=str(n)), b"x")
    consumer = await connection.channel()
    got = await collected(consumer, queue, 10)
    consumer.ack(got[3].delivery_tag, multiple=True)
    consumer.ack(got[7].delivery_tag)
    await consumer.close()
    again = await collected(channel, queue, 5)
    assert [each.properties.message_id for each in again] == ["4", "5", "6", "8", "9"]
    assert all(each.redelivered for each in again)


async def test_cancelled_tasks_shift_no_verdict(vhost: Any, connection: Any) -> None:
    """Whatever is cancelled and whenever, each verdict is about its own message: the key says what it must be."""
    channel = await connection.channel()
    await channel.confirm_select()
    queue = await channel.declare_queue(exclusive=True)
    full = await channel.declare_queue(exclusive=True, arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
    first = Verdicts(1)
    channel.publish("", full, Properties(), b"", on_settled=first.then(0))
    await first.all()
    chance = random.Random(3)
    loop = asyncio.get_running_loop()
    expected = {queue: Settled.ACKED, full: Settled.NACKED, "nowhere": Settled.RETURNED}
    told = Counter()

    async def ask() -> None:
        key = chance.choice(list(expected))
        verdict: asyncio.Future[Settled] = loop.create_future()

        def on_settled(settled: Settled) -> None:
            assert settled is expected[key]
            told[settled] += 1
            if not verdict.done():
                verdict.set_result(settled)

        for _ in range(chance.randint(0, 2)):
            await asyncio.sleep(0)
        channel.publish("", key, Properties(), b"x", mandatory=True, on_settled=on_settled)
        assert await verdict is expected[key]

    finished = 0
    for _ in range(60):
        tasks = [asyncio.create_task(ask()) for _ in range(50)]
        for _ in range(chance.randint(0, 4)):
            await asyncio.sleep(0)
        for task in chance.sample(tasks, 25):
            task.cancel()
        results = await soon(asyncio.gather(*tasks, return_exceptions=True))
        finished += sum(result is None for result in results)
        assert all(result is None or isinstance(result, asyncio.CancelledError) for result in results), results
    last = Verdicts(1)
    channel.publish("", queue, Properties(), b"", on_settled=last.then(0))
    assert await last.all() == {0: Settled.ACKED}
    async with asyncio.timeout(PATIENCE_S):
        while len(channel._confirms):
            await channel.declare_queue(queue, passive=True)
    assert finished >= 60 * 25
    assert min(told.values()) > 300
    assert told.total() >= finished


async def test_cancelled_calls_shift_no_answer(connection: Any) -> None:
    channel = await connection.channel()
    names = [await channel.declare_queue(f"q{n}", exclusive=True) for n in range(20)]
    chance = random.Random(4)
    for _ in range(50):
        tasks = {name: asyncio.create_task(channel.declare_queue(name, passive=True)) for name in names}
        await asyncio.sleep(0)
        for task in chance.sample(list(tasks.values()), 10):
            task.cancel()
        for name, task in tasks.items():
            with contextlib.suppress(asyncio.CancelledError):
                assert await soon(task) == name


async def test_a_cancelled_opening_leaves_no_channel_behind(connection: Any) -> None:
    for _ in range(50):
        task = asyncio.create_task(connection.channel())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    channel = await connection.channel()
    await channel.declare_queue(exclusive=True)
    async with asyncio.timeout(PATIENCE_S):
        while len(connection._channels) > 1:
            await channel.declare_queue(exclusive=True)
    assert not connection.closed.done()


async def test_the_end_is_told_to_all_who_wait(connection: Any, channel: Any) -> None:
    queue = await channel.declare_queue(exclusive=True)
    verdicts = Verdicts(100)
    for n in range(100):
        channel.publish("", queue, Properties(), b"x", on_settled=verdicts.then(n))
    connection.abort()
    assert set((await verdicts.all()).values()) == {Settled.LOST}
    with pytest.raises(ConnectionLost):
        channel.publish("", queue, Properties(), b"")
