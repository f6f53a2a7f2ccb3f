"""A lane's channel, its confirmed publisher and the control queue against a real broker, one by one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from modelmq import bundles, control
from modelmq.amqp import Channel, Connection, Delivery, Properties, Settled, connect
from modelmq.bundles import BUNDLE, LARGEST_PART_BYTES, RequestPart
from modelmq.control import Hello, WorkerReport
from modelmq.events import Event, MessageRefused, ignore
from modelmq.messages import CANCEL_TYPE, CONTROL_EXCHANGE, DEAD_LETTER_EXCHANGE, HELLO_TYPE, ReplyMode
from modelmq.retry_ladder import RETRY_EXCHANGE
from modelmq.worker import lane as lane_module
from modelmq.worker.confirmed import ConfirmedPublisher
from modelmq.worker.hello import Control
from modelmq.worker.item import Message
from modelmq.worker.lane import LaneChannel, LaneOf
from modelmq.worker.outcome import CANCELLED, RETURNED, Answer, Later, Outcome
from modelmq.worker.proving import ProvingPublisher
from modelmq.worker.reply_address import ReplyRules, rules_of
from modelmq.worker.tombstones import Name

pytestmark = pytest.mark.both_reply_modes

QUEUE = "requests"
OF = LaneOf("m", "interactive")
SUCCESS = Answer(Outcome.SUCCEEDED, b"yes")
WRONG = Answer(Outcome.INVALID, b"no", "invalid", "No.")
DEAD = Answer(Outcome.DEAD, b'{"error":"dead"}', "dead", "It died.", attempts=3)

PUT_OFF = Answer(Outcome.RETRIED, error="busy", later=Later((250, 375), 9000, 1, 3000))


@dataclass
class Bench:
    """A lane on a connection of its own, and a caller on another."""

    lane: LaneChannel
    caller: Channel
    held: asyncio.Queue[Delivery]
    replies: asyncio.Queue[Delivery]
    address: str
    worker: Connection
    proving: ProvingPublisher
    replying: ReplyRules
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    events: list[Event] = field(default_factory=list)

    def ask(self, name: str, reply_to: str | None = None) -> None:
        properties = Properties(correlation_id=name, reply_to=self.address if reply_to is None else reply_to)
        self.caller.publish("", QUEUE, properties, name.encode())

    async def next(self) -> Delivery:
        return await within(self.held.get())

    async def reply(self) -> tuple[str | None, bytes, dict[str, object] | None]:
        delivery = await within(self.replies.get())
        return delivery.properties.correlation_id, delivery.body, delivery.properties.headers

    def settle(self, delivery: Delivery, answer: Answer, *, at_once: bool = False) -> None:
        self.lane.settle(delivery, delivery.properties.reply_to or "", answer)
        self.lane.flush(at_once=at_once)

    async def left(self) -> int:
        """Messages that the broker still has after the lane retired, which gives back what it held."""
        await self.lane.retire(0)
        return await self.caller.purge_queue(QUEUE)


async def within(what):
    async with asyncio.timeout(20):
        return await what


@pytest.fixture
async def bench(vhost, reply_mode: ReplyMode, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    monkeypatch.setattr(lane_module, "REQUEUE_DELAY_S", 0.01)
    worker, client = await connect(vhost.options("worker")), await connect(vhost.options("client"))
    caller = await client.channel()
    await caller.declare_queue(QUEUE, durable=True, arguments={"x-queue-type": "quorum"})
    queue = address = await caller.declare_queue("", exclusive=True)
    replies: asyncio.Queue[Delivery] = asyncio.Queue()
    held: asyncio.Queue[Delivery] = asyncio.Queue()
    await caller.consume(queue, replies.put_nowait, no_ack=True)
    replying, stopping = rules_of(reply_mode), asyncio.Event()
    confirmed = ConfirmedPublisher(DEAD_LETTER_EXCHANGE, RETRY_EXCHANGE, replying.exchange)
    if replying.exchange:
        await caller.declare_exchange(replying.exchange, "direct", durable=True)
        address = "ml-gateway.g"  # no queue is called so: the default exchange does not lead there
        await caller.bind_queue(queue, replying.exchange, address)
    proving = ProvingPublisher(vhost.options("spare"), replying.exchange, ignore)
    keeping = asyncio.create_task(confirmed.run(worker, stopping))

    def accept(messages: Sequence[Message], _origin: LaneChannel) -> None:
        for message in messages:
            held.put_nowait(message)

    lane = LaneChannel(OF, await worker.channel(), confirmed, proving, replying, accept, lambda _: None)
    await lane.consume(QUEUE, 10)
    yield Bench(lane, caller, held, replies, address, worker, proving, replying, stopping)
    stopping.set()
    await worker.close()
    await client.close()
    await within(keeping)


async def test_an_answer_is_a_reply_and_an_ack(bench: Bench) -> None:
    bench.ask("a")
    bench.settle(await bench.next(), SUCCESS)
    assert await bench.reply() == ("a", b"yes", None)
    assert bench.lane.held == 0
    assert await bench.left() == 0


async def test_an_error_carries_its_code(bench: Bench) -> None:
    bench.ask("a")
    bench.settle(await bench.next(), Answer(Outcome.INVALID, b"no", "invalid", "No."))
    assert await bench.reply() == ("a", b"no", {"status": "invalid"})


async def test_nobody_hears_of_the_cancelled_and_they_are_gone(bench: Bench) -> None:
    bench.ask("a")
    bench.ask("b")
    bench.settle(await bench.next(), CANCELLED)
    bench.settle(await bench.next(), SUCCESS)
    assert (await bench.reply())[0] == "b"
    assert await bench.left() == 0


async def test_the_returned_come_again_as_redelivered(bench: Bench) -> None:
    bench.ask("a")
    bench.settle(await bench.next(), RETURNED)
    again = await bench.next()
    assert (again.body, again.redelivered) == (b"a", True)


async def test_an_answered_request_never_waits_unacked_behind_a_slow_one(bench: Bench) -> None:
    for name in "abc":
        bench.ask(name)
    await bench.next()
    for _ in range(2):
        bench.settle(await bench.next(), SUCCESS)
        await bench.reply()
    assert bench.lane.held == 1
    assert await bench.left() == 1


async def test_the_dead_are_kept_before_the_caller_hears_of_it(bench: Bench) -> None:
    await bench.caller.declare_exchange(DEAD_LETTER_EXCHANGE, "fanout")
    kept: asyncio.Queue[Delivery] = asyncio.Queue()
    queue = await bench.caller.declare_queue("kept", exclusive=True)
    await bench.caller.bind_queue(queue, DEAD_LETTER_EXCHANGE)
    await bench.caller.consume(queue, kept.put_nowait, no_ack=True)
    bench.ask("a")
    bench.settle(await bench.next(), DEAD)
    assert await bench.reply() == ("a", DEAD.body, {"status": "dead"})
    headers = (await within(kept.get())).properties.headers
    assert headers is not None
    assert headers.pop("died-at") > 0
    assert headers == {"reason": "model_process_died", "attempts": 3, "error": "It died."}
    assert await bench.left() == 0


async def test_the_dead_that_cannot_be_kept_come_again(bench: Bench) -> None:
    bench.ask("a")  # there is no dead-letter exchange: the broker closes the confirm channel
    bench.settle(await bench.next(), DEAD)
    assert (await bench.next()).redelivered
    assert bench.replies.empty()


async def rung(bench: Bench, delay_ms: int, *, full: bool = False) -> asyncio.Queue[Delivery]:
    """What comes into a delay queue, which leads nowhere here; a full one refuses all."""
    waiting: asyncio.Queue[Delivery] = asyncio.Queue()
    arguments = {"x-max-length": 0, "x-overflow": "reject-publish"} if full else {}
    queue = await bench.caller.declare_queue(f"ml-retry.{delay_ms}", exclusive=True, arguments=arguments)
    await bench.caller.declare_exchange(RETRY_EXCHANGE, "headers", durable=True)
    headers = {"x-match": "all", "retry-rung": str(delay_ms)}
    await bench.caller.bind_queue(queue, RETRY_EXCHANGE, arguments=headers)
    if not full:
        await bench.caller.consume(queue, waiting.put_nowait, no_ack=True)
    return waiting


async def test_what_is_put_off_is_on_the_broker_before_it_is_acked(bench: Bench) -> None:
    waiting = await rung(bench, 250)
    bench.ask("a")
    bench.settle(await bench.next(), PUT_OFF)
    copy = await within(waiting.get())
    assert (copy.routing_key, copy.body, copy.properties.correlation_id) == (QUEUE, b"a", "a")
    assert copy.properties.headers == {
        "deadline": 9000,
        "retries": 1,
        "retry-rung": "250",
        "retry-history": [{"at": 3000, "delay_ms": 250, "error": "busy"}],
    }
    await within(bench.lane.retire(60))
    assert await bench.caller.purge_queue(QUEUE) == 0
    assert bench.replies.empty()


async def test_where_a_delay_queue_is_full_the_next_one_takes_it(bench: Bench) -> None:
    await rung(bench, 250, full=True)
    waiting = await rung(bench, 375)
    bench.ask("a")
    bench.settle(await bench.next(), PUT_OFF)
    assert (await within(waiting.get())).properties.headers["retry-history"][0]["delay_ms"] == 375
    await within(bench.lane.retire(60))
    assert await bench.caller.purge_queue(QUEUE) == 0


@pytest.mark.parametrize("full", [True, False])
async def test_what_no_delay_queue_takes_comes_again(bench: Bench, full: bool) -> None:
    if full:
        for delay_ms in (250, 375):
            await rung(bench, delay_ms, full=True)
    bench.ask("a")  # else there is no exchange: the broker closes the confirm channel
    bench.settle(await bench.next(), PUT_OFF)
    assert (await bench.next()).redelivered
    assert bench.replies.empty()


async def test_an_exchange_that_is_missing_costs_nothing_that_goes_to_another(bench: Bench) -> None:
    waiting = await rung(bench, 250)
    for name in "ab":
        bench.ask(name)
    a, b = await bench.next(), await bench.next()
    bench.settle(a, DEAD)  # there is no dead-letter exchange: the broker closes a channel
    bench.settle(b, PUT_OFF)
    assert (await within(waiting.get())).body == b"b"
    assert (await bench.next()).body == b"a"
    assert await bench.left() == 1


async def test_what_is_confirmed_is_counted_by_the_queue_where_it_ends(bench: Bench) -> None:
    """By whatever key it gets there."""
    queues: list[str] = []
    bench.lane._replies = rules_of(bench.replying.mode, ("jobs.",))
    bench.lane._confirmed = SimpleNamespace(publish=lambda queue, *_: queues.append(queue))  # type: ignore[assignment]
    for answer in (PUT_OFF, DEAD, SUCCESS):
        bench.ask("a")
        bench.lane.settle(await bench.next(), "jobs.a", answer)
    assert queues == ["ml-retry.250", "ml-dead-letter.m", "jobs.a"]


async def test_retiring_gives_back_what_is_not_finished_in_time(bench: Bench) -> None:
    bench.ask("a")
    await bench.next()
    assert await bench.left() == 1


async def test_retiring_waits_for_what_is_held(bench: Bench) -> None:
    bench.ask("a")
    delivery = await bench.next()
    retiring = asyncio.create_task(bench.lane.retire(60))
    asyncio.get_running_loop().call_soon(bench.settle, delivery, SUCCESS)
    await within(retiring)
    assert await bench.caller.purge_queue(QUEUE) == 0


async def test_after_the_channel_is_gone_nothing_is_settled(bench: Bench) -> None:
    bench.ask("a")
    delivery = await bench.next()
    bench.worker.abort()
    await within(bench.lane.ended.wait())
    bench.settle(delivery, SUCCESS)
    assert (bench.lane.open, bench.lane.held) == (False, 0)


async def test_after_the_channel_is_gone_nothing_of_a_bundle_counts_as_held(bench: Bench) -> None:
    a, _, _ = await a_bundle(bench, "a", "b", "c")
    bench.lane.settle(a, bench.address, RETURNED)
    bench.worker.abort()
    await within(bench.lane.ended.wait())
    assert (bench.lane.held, bench.lane.requests, bench.lane.was_full) == (0, 0, False)


async def test_a_queue_that_is_deleted_ends_the_lane(bench: Bench) -> None:
    await bench.caller.delete_queue(QUEUE)
    await within(bench.lane.ended.wait())
    assert bench.lane.open


async def test_a_publish_without_a_channel_is_lost_once() -> None:
    told: list[Settled] = []
    ConfirmedPublisher("").publish("q", "", "q", Properties(), b"", told.append)
    assert told == [Settled.LOST]


def overtaken(connection: Connection, stopping: asyncio.Event) -> Any:
    """Another connection takes over while a channel is opened on this one."""

    async def channel() -> Channel:
        opened = await connection.channel()
        stopping.set()
        return opened

    return SimpleNamespace(channel=channel)


@pytest.mark.parametrize("last_confirms_s", [0.0, 60.0])
async def test_a_queue_that_refuses_everything_is_tried_by_another_channel(
    bench: Bench, last_confirms_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modelmq.client.refusals.PAUSE_S", (0.0, 0.0))
    monkeypatch.setattr("modelmq.worker.confirmed.LAST_CONFIRMS_S", last_confirms_s)
    confirmed, stopping, loop = ConfirmedPublisher(""), asyncio.Event(), asyncio.get_running_loop()
    keeping = asyncio.create_task(confirmed.run(bench.worker, stopping))
    full = {"x-queue-type": "quorum", "x-max-length": 1, "x-overflow": "reject-publish"}
    await bench.caller.declare_queue("full", durable=True, arguments=full)

    async def sent(queue: str) -> Settled:
        settled = loop.create_future()
        confirmed.publish(queue, "", queue, Properties(), b"", settled.set_result)
        return await settled

    async def another(before: Channel | None) -> Channel:
        while (now := confirmed._ways[""].channel) is before or now is None:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0)
        return now

    before = await within(another(None))
    while await within(sent("full")) is not Settled.NACKED:
        pass
    await within(another(before))
    assert await within(sent(QUEUE)) is Settled.ACKED
    if last_confirms_s:
        assert not before.closed.done(), "what it waits for may still be confirmed"
    else:
        assert await within(asyncio.shield(before.closed)) is None
    stopping.set()
    await bench.worker.close()
    await within(keeping)


async def test_a_batch_is_on_its_way_before_the_turn_of_the_loop_ends_and_all_else_leaves_together(
    bench: Bench,
) -> None:
    """In that turn the next messages may be decoded. A flood of refusals must not be a system call each."""
    for name in "abc":
        bench.ask(name)
    first, second, third = [await bench.next() for _ in range(3)]
    bench.settle(first, SUCCESS)
    bench.settle(second, SUCCESS)
    assert len(bench.worker._outgoing) >= 4
    bench.settle(third, SUCCESS, at_once=True)
    assert bench.worker._outgoing == []
    assert [(await bench.reply())[0] for _ in range(3)] == ["a", "b", "c"]


async def test_a_confirm_channel_that_opens_after_another_connection_took_over_is_not_used(bench: Bench) -> None:
    confirmed, stopping = ConfirmedPublisher(""), asyncio.Event()
    await within(confirmed.run(overtaken(bench.worker, stopping), stopping))
    assert confirmed._ways[""].channel is None


async def test_a_control_queue_that_opens_after_another_connection_took_over_is_not_used(bench: Bench) -> None:
    await bench.caller.declare_exchange(CONTROL_EXCHANGE, "fanout")
    stopping = asyncio.Event()
    report = WorkerReport("w", "r", ())
    listening = Control("ml-worker.r.w", lambda: report, lambda *_: None, bench.proving, bench.replying, ignore)
    await within(listening.run(overtaken(bench.worker, stopping), stopping))
    assert listening._channel is None


@pytest.fixture
async def control_bench(
    bench: Bench,
) -> AsyncIterator[tuple[Bench, list[tuple[Name, float | None]], Control, Callable[..., None]]]:
    """The control queue, what was withdrawn, and a way to publish to its exchange, all connected."""
    await bench.caller.declare_exchange(CONTROL_EXCHANGE, "fanout")
    withdrawn: list[tuple[Name, float | None]] = []
    heard = asyncio.Event()

    def withdraw(name: Name, left_s: float | None) -> None:
        withdrawn.append((name, left_s))
        heard.set()

    report = WorkerReport("w", "r", ())
    listening = Control("ml-worker.r.w", lambda: report, withdraw, bench.proving, bench.replying, bench.events.append)
    running = asyncio.create_task(listening.run(bench.worker, bench.stopping))

    def publish(body: bytes, **properties: str) -> None:
        bench.caller.publish(CONTROL_EXCHANGE, "", Properties(**properties), body)  # type: ignore[arg-type]

    # The queue is bound once a hello is answered; until then the exchange drops what it is given.
    async with asyncio.timeout(20):
        while bench.replies.empty():
            publish(control.encode(Hello("g")), type=HELLO_TYPE, reply_to=bench.address)
            await asyncio.sleep(0.02)
    yield bench, withdrawn, listening, publish
    bench.stopping.set()
    await bench.worker.close()
    await within(running)
    assert [event for event in bench.events if type(event) is not MessageRefused] == []


async def until_answered(bench: Bench, publish: Callable[..., None]) -> Delivery:
    """The answer to one more hello; those before it are dropped."""
    publish(control.encode(Hello("g")), type=HELLO_TYPE, reply_to=bench.address, correlation_id="last")
    async with asyncio.timeout(20):
        while (delivery := await bench.replies.get()).properties.correlation_id != "last":
            pass
    return delivery


async def test_hello_is_answered_to_its_address(control_bench) -> None:
    bench, _, _, publish = control_bench
    delivery = await until_answered(bench, publish)
    assert delivery.properties.type == HELLO_TYPE
    assert control.decode_report(delivery.body) == WorkerReport("w", "r", ())


async def test_garbage_and_forged_addresses_are_passed_over(control_bench) -> None:
    bench, withdrawn, _, publish = control_bench
    for properties in ({}, {"type": "odd"}, {"type": HELLO_TYPE}, *[{"type": HELLO_TYPE, "reply_to": QUEUE}] * 3):
        publish(b"\xff", **properties)
    publish(b"", type=CANCEL_TYPE, reply_to=bench.address)
    publish(b"", type=CANCEL_TYPE, reply_to=bench.address, correlation_id="c")
    await until_answered(bench, publish)
    assert withdrawn == [((bench.address, "c"), None)]
    (told,) = bench.events
    assert isinstance(told, MessageRefused)
    assert told.error.startswith("A gateway's hello is not answered: The reply_to names a queue")
    assert await bench.left() == 0


async def test_a_change_is_pushed_once_to_the_gateways_heard_of(control_bench) -> None:
    bench, _, listening, publish = control_bench
    await until_answered(bench, publish)
    for _ in range(3):
        listening.push_soon()
    pushed = await within(bench.replies.get())
    assert pushed.properties.correlation_id is None
    assert control.decode_report(pushed.body) == WorkerReport("w", "r", ())
    await until_answered(bench, publish)
    assert bench.replies.empty()


def parts(*names: str) -> bytes:
    return bundles.encode([RequestPart(name, 2**40, name, "application/json", None, name.encode()) for name in names])


async def a_bundle(bench: Bench, *names: str) -> list[Message]:
    bench.caller.publish("", QUEUE, Properties(content_type=BUNDLE, reply_to=bench.address), parts(*names))
    return [await bench.next() for _ in names]


async def replies_together(bench: Bench) -> list[tuple[str, str, bytes]]:
    delivery = await within(bench.replies.get())
    assert delivery.properties.content_type == BUNDLE
    return [(part.correlation_id, part.status, part.body) for part in bundles.decode_replies(delivery.body)]


async def test_replies_to_a_bundle_go_together_and_then_it_is_acked(bench: Bench) -> None:
    a, b, c = await a_bundle(bench, "a", "b", "c")
    assert bench.lane.held == 1
    for message in (a, b, c):
        bench.lane.settle(message, bench.address, SUCCESS if message is not b else WRONG)
    bench.lane.flush()
    assert await replies_together(bench) == [("a", "", b"yes"), ("b", "invalid", b"no"), ("c", "", b"yes")]
    assert bench.lane.held == 0
    assert await bench.left() == 0


async def test_replies_to_several_bundles_of_one_caller_share_a_message(bench: Bench) -> None:
    for message in [*await a_bundle(bench, "a", "b"), *await a_bundle(bench, "c")]:
        bench.lane.settle(message, bench.address, SUCCESS)
    bench.lane.flush()
    assert [name for name, _, _ in await replies_together(bench)] == ["a", "b", "c"]
    assert await bench.left() == 0


async def test_a_part_that_is_answered_alone_has_a_reply_of_its_own_and_the_bundle_is_kept(bench: Bench) -> None:
    a, _ = await a_bundle(bench, "a", "b")
    bench.settle(a, SUCCESS)
    assert await bench.reply() == ("a", b"yes", None)
    assert bench.lane.held == 1
    assert await bench.left() == 1


async def test_a_part_that_is_put_off_is_a_message_of_its_own(bench: Bench) -> None:
    waiting = await rung(bench, 250)
    a, b = await a_bundle(bench, "a", "b")
    bench.settle(a, PUT_OFF)
    copy = await within(waiting.get())
    assert (copy.body, copy.properties.correlation_id, copy.properties.reply_to) == (b"a", "a", bench.address)
    assert (copy.properties.content_type, copy.properties.headers["deadline"]) == ("application/json", 2**40)
    assert bench.lane.held == 1
    bench.settle(b, SUCCESS)
    assert await bench.reply() == ("b", b"yes", None)
    await within(bench.lane.retire(60))
    assert await bench.caller.purge_queue(QUEUE) == 0


async def test_a_large_reply_travels_alone(bench: Bench) -> None:
    large = Answer(Outcome.SUCCEEDED, bytes(LARGEST_PART_BYTES + 1))
    a, b, c = await a_bundle(bench, "a", "b", "c")
    for message, answer in ((a, SUCCESS), (b, large), (c, SUCCESS)):
        bench.lane.settle(message, bench.address, answer)
    bench.lane.flush()
    assert await bench.reply() == ("b", large.body, None)
    assert [name for name, _, _ in await replies_together(bench)] == ["a", "c"]
    assert await bench.left() == 0


async def test_a_part_that_goes_back_takes_the_bundle_with_it_once_all_have_an_outcome(bench: Bench) -> None:
    a, b = await a_bundle(bench, "a", "b")
    bench.settle(a, RETURNED)
    assert bench.lane.held == 1
    bench.settle(b, SUCCESS)
    assert (await bench.reply())[0] == "b"
    again = [await bench.next() for _ in range(2)]
    assert [(message.body, message.redelivered) for message in again] == [(b"a", True), (b"b", True)]
    for message in again:
        bench.lane.settle(message, bench.address, SUCCESS)
    bench.lane.flush()
    assert len(await replies_together(bench)) == 2
    assert await bench.left() == 0


async def test_a_dead_part_is_kept_as_a_message_of_its_own_and_its_siblings_are_answered(bench: Bench) -> None:
    await bench.caller.declare_exchange(DEAD_LETTER_EXCHANGE, "fanout")
    kept: asyncio.Queue[Delivery] = asyncio.Queue()
    queue = await bench.caller.declare_queue("kept", exclusive=True)
    await bench.caller.bind_queue(queue, DEAD_LETTER_EXCHANGE)
    await bench.caller.consume(queue, kept.put_nowait, no_ack=True)
    a, b, c = await a_bundle(bench, "a", "b", "c")
    bench.lane.settle(a, bench.address, SUCCESS)
    bench.lane.settle(b, bench.address, DEAD)
    bench.lane.settle(c, bench.address, SUCCESS)
    bench.lane.flush()
    assert [name for name, _, _ in await replies_together(bench)] == ["a", "c"]
    assert await bench.reply() == ("b", DEAD.body, {"status": "dead"})
    letter = await within(kept.get())
    assert (letter.body, letter.properties.correlation_id, letter.properties.content_type) == (
        b"b",
        "b",
        "application/json",
    )
    assert await bench.left() == 0


async def test_a_bundle_nobody_can_read_is_one_message(bench: Bench) -> None:
    bench.caller.publish("", QUEUE, Properties(content_type=BUNDLE, reply_to=bench.address), b"garbage")
    bench.settle(await bench.next(), WRONG)
    assert (await bench.reply())[1] == b"no"
    assert await bench.left() == 0
