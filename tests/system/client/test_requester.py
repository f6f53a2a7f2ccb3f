"""The requester on a real broker: answers, refusals, silence and withdrawal."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from modelmq import control
from modelmq.amqp import Delivery, Properties
from modelmq.client.cancels import Cancels
from modelmq.control import WorkerReport
from modelmq.errors import (
    Expired,
    InvalidRequest,
    ModelFailed,
    NotFound,
    Overloaded,
    TooLarge,
    Unavailable,
)
from modelmq.events import BrokerConnected, ReplyUnmatched
from modelmq.protocol import encode_error

pytestmark = pytest.mark.broker


@pytest.mark.both_reply_modes
@pytest.mark.both_brokers
async def test_a_question_is_answered_and_is_the_message_of_the_contract(
    broker: Any, asking: Any, reply_mode: str
) -> None:
    await broker.provision(queue_type="quorum")
    await broker.echo()
    asker = await asking()
    before = time.time()
    assert await asker.ask(b'{"a":1}', timeout_s=10, headers={"traceparent": "00-ab"}) == b'{"a":1}'
    properties = broker.requests.items[0].properties
    assert properties.content_type == "application/json"
    assert properties.delivery_mode == 2
    assert properties.message_id == properties.correlation_id
    assert properties.reply_to.startswith({"direct": "amq.rabbitmq.reply-to.", "queue": "ml-gateway.test."}[reply_mode])
    assert properties.headers["traceparent"] == "00-ab"
    assert before + 10 <= properties.headers["deadline"] / 1000 + 0.001 <= time.time() + 10.001
    assert 14_000 <= int(properties.expiration) <= 15_000
    assert asker.requester.in_flight == 0
    assert asker.requester.status() == (True, "connected to RabbitMQ")


async def test_version_lane_and_ids_are_sent(broker: Any, asking: Any) -> None:
    await broker.provision()
    await broker.echo()
    asker = await asking()
    await asker.ask(version="1", message_id="request-7", content_type="application/json; charset=utf-8")
    asked = broker.requests.items[0]
    assert asked.routing_key == "echo.1"
    assert asked.properties.message_id == "request-7"
    assert asked.properties.content_type == "application/json; charset=utf-8"
    with pytest.raises(NotFound, match="No model echo"):
        await asker.ask(lane="bulk")


async def test_ten_thousand_requests_get_each_its_own_answer(broker: Any, asking: Any) -> None:
    await broker.provision()
    await broker.echo()
    asker = await asking(connections=2)
    numbers = iter(range(10_000))

    async def one_after_another() -> int:
        answered = 0
        for number in numbers:
            assert await asker.ask(b"%d" % number) == b"%d" % number
            answered += 1
        return answered

    assert sum(await asyncio.gather(*(one_after_another() for _ in range(256)))) == 10_000
    assert asker.requester.in_flight == 0
    assert asker.of(ReplyUnmatched) == []


@pytest.mark.parametrize(
    ("status", "error"), [("invalid", InvalidRequest), ("failed", ModelFailed), ("news", ModelFailed)]
)
async def test_an_error_reply_is_its_error(broker: Any, asking: Any, status: str, error: type[Exception]) -> None:
    await broker.provision()
    await broker.echo(answering=False)
    asker = await asking()
    (task,) = asker.start(1)
    (asked,) = await broker.requests.count(1)
    broker.answer(asked, encode_error("because"), headers={"status": status})
    with pytest.raises(error, match=r"^because$"):
        await task


@pytest.mark.both_brokers
async def test_a_model_without_a_queue_is_not_found_at_once(broker: Any, asking: Any) -> None:
    await broker.provision()
    asker = await asking()
    with pytest.raises(NotFound, match="No model nobody"):
        await asker.ask(model="nobody")
    with pytest.raises(NotFound, match="No version 7 of echo"):
        await asker.ask(version="7")
    with pytest.raises(NotFound, match="no model's name"):
        await asker.ask(model="a.b")


@pytest.mark.both_brokers
async def test_a_full_queue_is_overloaded_at_once(broker: Any, asking: Any, results_of: Any) -> None:
    await broker.provision(arguments={"x-max-length": 2, "x-overflow": "reject-publish"})
    asker = await asking()
    results = await results_of(asker.start(20, timeout_s=1.5))
    refused = [result for result in results if isinstance(result, Overloaded)]
    assert len(refused) >= 10
    assert all(error.retry_after_s and "full" in error.message for error in refused)
    assert all(isinstance(result, Overloaded | Expired) for result in results)


@pytest.mark.both_reply_modes
async def test_the_deadline_ends_it_and_withdraws_it(broker: Any, asking: Any) -> None:
    await broker.provision()
    await broker.watch_control()
    await broker.echo(answering=False)
    asker = await asking()
    begun = time.monotonic()
    with pytest.raises(Expired, match="Model echo"):
        await asker.ask(timeout_s=0.2)
    assert 0.19 <= time.monotonic() - begun < 1.0
    await withdrawn(broker)
    broker.answer(broker.requests.items[0], b"late")
    await asker.events.until(lambda: asker.of(ReplyUnmatched))


async def test_a_deadline_that_has_passed_sends_nothing(broker: Any, asking: Any) -> None:
    await broker.provision()
    await broker.echo()
    asker = await asking()
    with pytest.raises(Expired):
        await asker.ask(b"late", timeout_s=-1)
    assert await asker.ask(b"on time") == b"on time"
    assert [each.body for each in broker.requests.items] == [b"on time"]


@pytest.mark.both_reply_modes
@pytest.mark.both_brokers
async def test_cancelling_the_task_withdraws_the_request(broker: Any, asking: Any) -> None:
    await broker.provision()
    await broker.watch_control()
    await broker.echo(answering=False)
    asker = await asking()
    (task,) = asker.start(1)
    await broker.requests.count(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert asker.requester.in_flight == 0
    await withdrawn(broker)
    late = broker.requests.items[0].properties.headers["deadline"]
    assert broker.control.items[0].properties.headers["deadline"] == late


@pytest.mark.both_reply_modes
async def test_many_are_withdrawn_by_one_channel_and_all_that_wait_at_the_end(broker: Any, asking: Any) -> None:
    await broker.provision()
    await broker.watch_control()
    await broker.echo(answering=False)
    asker = await asking()
    tasks = asker.start(300)
    await broker.requests.count(300)
    for task in tasks[:200]:
        task.cancel()
    await broker.control.count(200)
    await asker.requester.stop()
    await broker.control.count(300)
    await asyncio.gather(*tasks, return_exceptions=True)
    asked = {(each.properties.reply_to, each.properties.correlation_id) for each in broker.requests.items}
    told = [(each.properties.reply_to, each.properties.correlation_id) for each in broker.control.items]
    assert len(told) == 300
    assert set(told) == asked


async def withdrawn(broker: Any) -> None:
    """The first control message is a cancel of the first request: same address, same id."""
    (cancel,) = await broker.control.count(1)
    asked = broker.requests.items[0].properties
    told = cancel.properties
    assert (told.type, told.reply_to, told.correlation_id) == ("cancel", asked.reply_to, asked.correlation_id)


@pytest.mark.both_reply_modes
@pytest.mark.both_brokers
async def test_who_may_not_withdraw_loses_nothing_by_trying(
    broker: Any,
    asking: Any,
    vhost: Any,
    _admin: Any,  # noqa: PT019 - it is called
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A topology of before: RabbitMQ closes the channel with the cancel (403), and only that; none is sent again."""
    await broker.provision()
    await broker.echo(answering=False)
    ended: list[Cancels] = []
    end = Cancels._end
    over = asyncio.Event()
    monkeypatch.setattr(Cancels, "_end", lambda self: [ended.append(self), over.set(), end(self)])
    rights = {"configure": ".*", "write": "^(ml-model-exchange|amq\\.gen-.*|ml-gateway.*)$", "read": ".*"}
    user = f"{vhost.name}-asks"
    _admin.call("PUT", f"users/{user}", {"password": vhost.password, "tags": ""})
    try:
        _admin.call("PUT", f"permissions/{vhost.name}/{user}", rights)
        asker = await asking(options=replace(vhost, username=user).options())
        first, waiting = asker.start(2)
        await broker.requests.count(2)
        first.cancel()
        await asyncio.wait_for(over.wait(), 30)
        assert ended[0]._own is not None
        third = asyncio.create_task(asker.ask(b"third"))
        await broker.requests.count(3)
        third.cancel()
        broker.answer(broker.requests.items[1], b"answered")
        assert await waiting == b"answered"
        broker.answering = True
        assert await asker.ask(b"last") == b"last"
        assert len(asker.of(BrokerConnected)) == 1
        assert len(set(map(id, ended))) == 1
    finally:
        _admin.call("DELETE", f"users/{user}")


@pytest.mark.both_reply_modes
@pytest.mark.both_brokers
async def test_a_second_reply_is_told_and_dropped(broker: Any, asking: Any) -> None:
    await broker.provision()
    await broker.echo(answering=False)
    asker = await asking()
    (task,) = asker.start(1)
    (asked,) = await broker.requests.count(1)
    broker.answer(asked, b"first")
    broker.answer(asked, b"second")
    broker.answer(asked, b"stranger", correlation_id=None)
    assert await task == b"first"
    await asker.events.until(lambda: len(asker.of(ReplyUnmatched)) == 2)
    ids = [event.correlation_id for event in asker.of(ReplyUnmatched)]
    assert ids == [asked.properties.correlation_id, ""]


@pytest.mark.both_reply_modes
async def test_workers_answer_hello(broker: Any, asking: Any) -> None:
    await broker.provision()
    await broker.watch_control()
    asker = await asking()
    assert asker.requester.say_hello("gateway-1")
    (hello,) = await broker.control.count(1)
    assert control.decode_hello(hello.body).gateway == "gateway-1"
    report = WorkerReport("worker-1", "default", ())
    broker.answer(hello, control.encode(report), type="hello")
    (body,) = await asker.reports.count(1)
    assert control.decode_report(body) == report


async def test_a_reply_comes_before_its_confirm_and_is_enough(broker: Any, asking: Any) -> None:
    """A quorum queue with a fast worker answers before the broker confirms, now and then; nobody may notice."""
    await broker.provision(queue_type="quorum")
    await broker.echo()
    asker = await asking(confirm_timeout_s=0.5)
    for number in range(300):
        assert await asker.ask(b"%d" % number) == b"%d" % number


async def test_what_amqp_cannot_carry_is_invalid_and_harms_nobody(broker: Any, asking: Any) -> None:
    await broker.provision()
    await broker.echo()
    asker = await asking()
    with pytest.raises(InvalidRequest, match="cannot be made a message"):
        await asker.ask(message_id="x" * 256)
    with pytest.raises(TooLarge):
        await asker.ask(bytes(16 * 1024 * 1024 + 1))
    assert await asker.ask(b"fine") == b"fine"
    assert asker.requester.in_flight == 0


async def test_a_reply_over_the_limit_is_a_failure(broker: Any, asking: Any, vhost: Any) -> None:
    await broker.provision()
    await broker.echo(answering=False)
    asker = await asking(options=msgspec.structs.replace(vhost.options(), max_body_bytes=1000))
    (task,) = asker.start(1)
    (asked,) = await broker.requests.count(1)
    broker.answer(asked, bytes(1001))
    with pytest.raises(ModelFailed, match="1001 bytes"):
        await task


async def test_more_than_the_connection_should_hold_waits_and_is_sent(broker: Any, asking: Any) -> None:
    await broker.provision()
    await broker.echo()
    asker = await asking(confirm_timeout_s=30)  # 40 MB
    shard = asker.requester._shards[0]
    bodies = [bytes([number]) * 2_000_000 for number in range(20)]
    first = [asyncio.create_task(asker.ask(body)) for body in bodies[:10]]
    async with asyncio.timeout(30):
        while shard._outbox.channel.connection.writable:  # noqa: ASYNC110 - until the network has taken what it takes at once
            await asyncio.sleep(0)
    rest = [asyncio.create_task(asker.ask(body)) for body in bodies[10:]]
    await asyncio.sleep(0)
    assert len(shard._pending.unsent()) == 10
    assert await asyncio.gather(*first, *rest) == bodies


async def test_a_reply_right_behind_the_cancellation_harms_nobody(broker: Any, asking: Any) -> None:
    await broker.provision()
    await broker.echo(answering=False)
    asker = await asking()
    (task,) = asker.start(1)
    (asked,) = await broker.requests.count(1)
    task.cancel()
    reply = Delivery(1, "c1", 1, False, "", "")
    reply._properties = Properties(correlation_id=asked.properties.correlation_id)
    asker.requester._shards[0]._replies._on_reply(reply)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert asker.requester.in_flight == 0


@pytest.mark.both_reply_modes
async def test_a_status_that_is_no_word_is_a_failure(broker: Any, asking: Any) -> None:
    await broker.provision()
    await broker.echo(answering=False)
    asker = await asking()
    (task,) = asker.start(1)
    (asked,) = await broker.requests.count(1)
    properties = Properties(correlation_id=asked.properties.correlation_id, headers={"status": 7})
    broker.channel.publish(broker.reply_exchange, asked.properties.reply_to, properties, b"\xff\x00")
    with pytest.raises(ModelFailed):
        await task


async def test_stopping_answers_everybody(broker: Any, asking: Any, results_of: Any) -> None:
    await broker.provision()
    await broker.echo(answering=False)
    asker = await asking()
    tasks = asker.start(50)
    deliveries: list[Delivery] = await broker.requests.count(50)
    assert len(deliveries) == 50
    await asker.requester.stop()
    assert all(isinstance(result, Unavailable) for result in await results_of(tasks))
    with pytest.raises(Unavailable, match="closed"):
        await asker.ask()
    assert asker.requester.status()[0] is False
