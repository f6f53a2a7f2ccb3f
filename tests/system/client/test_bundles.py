"""Requests that share a message, from the requester's side, on a real broker."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from modelmq import bundles
from modelmq.amqp import Delivery, options_from_url
from modelmq.bundles import BUNDLE, LARGEST_PART_BYTES, ReplyPart, RequestPart
from modelmq.errors import InvalidRequest, NotFound, Overloaded, Unavailable
from modelmq.events import ReplyUnmatched
from modelmq.protocol import encode_error

pytestmark = pytest.mark.broker


def parts_of(delivery: Delivery) -> list[RequestPart]:
    assert delivery.properties.content_type == BUNDLE
    return list(bundles.decode_requests(delivery.body))


def answer(broker: Any, delivery: Delivery, replies: list[ReplyPart]) -> None:
    broker.answer(delivery, bundles.encode(replies), content_type=BUNDLE, correlation_id=None)


@pytest.mark.both_reply_modes
async def test_requests_of_one_turn_share_a_message_and_each_gets_its_own_answer(
    broker: Any, asking: Any, results_of: Any, reply_mode: str
) -> None:
    await broker.provision(queue_type="quorum")
    await broker.echo(answering=False)
    asker = await asking()
    tasks = asker.start(5, bundle_limit=3, timeout_s=10, headers={"traceparent": "00-ab"})
    first, second = await broker.requests.count(2)
    parts = [*parts_of(first), *parts_of(second)]
    assert [len(parts_of(first)), len(parts_of(second))] == [3, 2]
    assert [part.body for part in parts] == [b"%d" % number for number in range(5)]
    assert len({part.correlation_id for part in parts}) == 5
    assert all(part.headers == {"traceparent": "00-ab"} for part in parts)
    begins = {"direct": "amq.rabbitmq.reply-to.", "queue": "ml-gateway.test."}
    assert first.properties.reply_to.startswith(begins[reply_mode])
    assert first.properties.delivery_mode == 2
    assert 14_000 <= int(first.properties.expiration) <= 15_001
    # Answers come together in any order, an error among them; or singly.
    error = ReplyPart(parts[1].correlation_id, "invalid", encode_error("because"))
    answer(broker, first, [ReplyPart(parts[3].correlation_id, "", b"d"), error, ReplyPart("stranger", "", b"")])
    for number in (0, 2, 4):
        broker.answer(first, parts[number].body, correlation_id=parts[number].correlation_id)
    results = await results_of(tasks)
    assert isinstance(results[1], InvalidRequest)
    assert [results[0], *results[2:]] == [b"0", b"2", b"d", b"4"]
    assert [event.correlation_id for event in asker.of(ReplyUnmatched)] == ["stranger"]
    assert asker.requester.in_flight == 0


async def test_alone_a_request_is_the_message_of_the_contract(broker: Any, asking: Any) -> None:
    await broker.provision()
    await broker.echo()
    asker = await asking()
    assert await asker.ask(b"{}", bundle_limit=30) == b"{}"
    assert broker.requests.items[0].properties.content_type == "application/json"


async def test_what_is_large_or_odd_or_of_another_key_travels_alone(broker: Any, asking: Any, results_of: Any) -> None:
    await broker.provision()
    await broker.echo()
    asker = await asking()
    tasks = [
        asyncio.create_task(asker.ask(body, bundle_limit=30, **more))
        for body, more in (
            (bytes(LARGEST_PART_BYTES + 1), {}),
            (b"odd", {"headers": {"odd": 1.5}}),
            (b"version", {"version": "1"}),
            (b"plain", {}),
        )
    ]
    assert [len(result) for result in await results_of(tasks)] == [LARGEST_PART_BYTES + 1, 3, 7, 5]
    assert all(delivery.properties.content_type == "application/json" for delivery in broker.requests.items)


@pytest.mark.both_reply_modes
async def test_a_withdrawn_request_is_left_out_and_a_sent_one_is_cancelled_alone(
    broker: Any, asking: Any, results_of: Any
) -> None:
    await broker.provision()
    await broker.watch_control()
    await broker.echo(answering=False)
    asker = await asking()
    tasks = asker.start(4, bundle_limit=30)
    asyncio.get_running_loop().call_soon(tasks[3].cancel)  # asked in this turn, withdrawn before its end
    (delivery,) = await broker.requests.count(1)
    parts = parts_of(delivery)
    assert [part.body for part in parts] == [b"0", b"1", b"2"]
    tasks[1].cancel()
    (cancel,) = await broker.control.count(1)
    assert cancel.properties.type == "cancel"
    assert cancel.properties.correlation_id == parts[1].correlation_id
    answer(broker, delivery, [ReplyPart(part.correlation_id, "", part.body) for part in parts])
    assert await results_of([tasks[0], tasks[2]]) == [b"0", b"2"]


async def test_a_key_without_a_queue_and_a_full_queue_are_told_to_each(
    broker: Any, asking: Any, results_of: Any
) -> None:
    await broker.provision(arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
    asker = await asking()
    waiting = asker.start(2, bundle_limit=30)  # one message, which fills the queue
    unknown = await results_of(asker.start(3, bundle_limit=30, lane="bulk"))
    assert [type(result) for result in unknown] == [NotFound] * 3
    refused = await results_of(asker.start(3, bundle_limit=30))
    assert [type(result) for result in refused] == [Overloaded] * 3
    await asker.requester.stop()
    assert [type(result) for result in await results_of(waiting)] == [Unavailable] * 2


@pytest.mark.both_reply_modes
async def test_after_a_lost_connection_the_parts_are_sent_again_with_their_ids(
    broker: Any, asking: Any, cut: Any, vhost: Any, results_of: Any
) -> None:
    await broker.provision(queue_type="quorum")
    await broker.echo(answering=False)
    options = options_from_url(vhost.url.replace(f":{vhost.node.amqp_port}/", f":{cut.port}/"), name="test-asker")
    asker = await asking(options=options, confirm_timeout_s=10.0)
    tasks = asker.start(4, bundle_limit=30)
    (delivery,) = await broker.requests.count(1)
    sent = [part.correlation_id for part in parts_of(delivery)]
    cut.break_off()
    again = (await broker.requests.count(2))[1]
    assert [part.correlation_id for part in parts_of(again)] == sent
    answer(broker, again, [ReplyPart(part.correlation_id, "", part.body) for part in parts_of(again)])
    assert await results_of(tasks) == [b"0", b"1", b"2", b"3"]
