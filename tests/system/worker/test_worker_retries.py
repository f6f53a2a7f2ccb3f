"""What becomes of requests that a model wants to see again later, on a real broker with its policies."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from modelmq.amqp import Delivery, Settled
from modelmq.broker.management_values import Overview
from modelmq.client import Request, Requester
from modelmq.client.replies import Rights
from modelmq.events import RequestRetried, ignore
from modelmq.messages import MODEL_EXCHANGE
from modelmq.retry_ladder import RETRY_EXCHANGE, RUNGS_MS, queue_of
from modelmq.worker.confirmed import ConfirmedPublisher

pytestmark = [pytest.mark.broker, pytest.mark.both_brokers]

Make = Callable[..., None]
Start = Callable[..., Awaitable[Any]]
Ladder = Callable[..., Awaitable[None]]

LANE, UNROUTED, LETTERS, EXPIRED = "ml-model.shop.interactive", "ml-unrouted", "ml-dead-letter.shop", "ml-expired"
LOWEST = RUNGS_MS[:4]

# Sells what is asked for, but sees 7 `TIMES` times before it does, and never 13.
SHOP = """
    from pathlib import Path
    from modelmq import Retry

    class Model:
        inputs = {"x": ("FP64", [-1])}
        outputs = {"y": ("FP64", [-1])}
        def predict(self, batch):
            seen = Path("FOLDER/seen")
            if 7 in batch["x"] and len(batch["x"]) == 1:
                seen.write_text((seen.read_text() if seen.exists() else "") + "7")
            if 13 in batch["x"] or 7 in batch["x"] and (not seen.exists() or len(seen.read_text()) <= TIMES):
                raise Retry(AFTER, "sold out")
            return {"y": batch["x"] * 2}
"""


@pytest.fixture
def shop(make_model: Make, tmp_path: Path) -> Callable[..., Path]:
    """The model; the file in which it notes each 7 that it saw alone."""

    def make(*, times: int = 2, after_s: float = 0.1, toml: str = "") -> Path:
        code = SHOP.replace("FOLDER", str(tmp_path)).replace("TIMES", str(times)).replace("AFTER", str(after_s))
        make_model("shop", code, toml=toml)
        return tmp_path / "seen"

    return make


async def taken(asker: Any, queue: str) -> Delivery:
    """The next message of a queue, which is left there."""
    channel = await asker.connection.channel()
    found: asyncio.Future[Delivery] = asyncio.get_running_loop().create_future()
    await channel.qos(1)
    await channel.consume(queue, lambda delivery: found.done() or found.set_result(delivery))
    delivery = await asyncio.wait_for(found, 30)
    await channel.close()
    return delivery


async def nothing_is_left(asker: Any) -> None:
    for queue in (LANE, UNROUTED, LETTERS, EXPIRED, *map(queue_of, LOWEST)):
        assert await asker.messages(queue) == [], queue


@pytest.mark.both_reply_modes
async def test_the_answer_comes_when_the_model_gives_it_and_the_neighbours_do_not_wait(
    shop: Any, ladder: Ladder, start_worker: Start, asker: Any, request_body: Any
) -> None:
    seen = shop(times=2)
    await ladder()
    running = await start_worker()
    began_s = time.monotonic()
    names = {value: await asker.send("shop", request_body(value), expiration="20000") for value in (7, 1, 2, 3)}
    for value in (1, 2, 3):
        assert (await asker.answer(names[value])).values == [value * 2]
        assert names[7] not in asker.replies
    assert (await asker.answer(names[7])).values == [14]
    assert time.monotonic() - began_s >= 2 * 0.25
    assert seen.read_text() == "777"
    told = running.of(RequestRetried)
    assert [(each.model, each.version, each.retries, each.why) for each in told] == [
        ("shop", "1", 1, "sold out"), ("shop", "1", 2, "sold out"),
    ]  # fmt: skip
    assert {each.delay_s for each in told} <= {0.25, 0.375}
    await running.stop()
    assert {name: len(replies) for name, replies in asker.replies.items()} == dict.fromkeys(names.values(), 1)
    await nothing_is_left(asker)


async def test_what_would_be_too_late_is_told_at_once(
    shop: Any, ladder: Ladder, start_worker: Start, asker: Any
) -> None:
    shop(after_s=30)
    await ladder()
    running = await start_worker()
    deadline_ms = int(time.time() * 1000) + 25_000
    answer = await asker.ask("shop", 13, headers={"deadline": deadline_ms})
    assert answer.status == "expired"
    assert "sold out" in answer.body["error"]
    assert time.time() * 1000 < deadline_ms - 5000
    await running.stop()
    await nothing_is_left(asker)


async def test_after_the_last_try_the_request_is_kept_with_its_history(
    shop: Any, ladder: Ladder, start_worker: Start, asker: Any, request_body: Any
) -> None:
    shop(toml="max_retries = 2")
    await ladder()
    await start_worker()
    sent = {"headers": {"mine": "kept"}, "expiration": "25000", "message_id": "order-13"}
    answer = await asker.ask("shop.1", 13, **sent)
    assert answer.status == "dead"
    assert "each of the 3 times" in answer.body["error"]
    (letter,) = await asker.messages(LETTERS)
    headers = letter.properties.headers
    assert (headers["reason"], headers["attempts"], headers["retries"]) == ("retries_exhausted", 3, 2)
    assert [(each["error"], each["delay_ms"] in LOWEST) for each in headers["retry-history"]] == [
        ("sold out", True), ("sold out", True),
    ]  # fmt: skip
    assert (headers["mine"], letter.properties.message_id, letter.routing_key) == ("kept", "order-13", "shop.1")
    assert abs(headers["deadline"] / 1000 - time.time() - 25) < 20
    assert letter.properties.expiration is None
    assert letter.body == request_body(13)


async def test_a_request_whose_model_is_removed_meanwhile_ends_in_the_unrouted_queue(
    shop: Any, ladder: Ladder, start_worker: Start, asker: Any, request_body: Any
) -> None:
    shop(after_s=0.5)
    await ladder()
    name = await asker.send("shop", request_body(13))
    await asker.channel.unbind_queue(LANE, MODEL_EXCHANGE, "shop")  # so that it comes back to nothing, however soon
    running = await start_worker()
    await running.until(lambda: bool(running.of(RequestRetried)))
    await running.stop()  # which waits until it is put off
    for lane in (LANE, "ml-model.shop.bulk"):
        await asker.channel.delete_queue(lane)
    kept = await taken(asker, UNROUTED)
    assert (kept.body, kept.routing_key, kept.properties.correlation_id) == (request_body(13), "shop", name)
    assert kept.properties.headers["retries"] == 1
    assert kept.properties.headers["retry-history"][0]["error"] == "sold out"
    assert name not in asker.replies


async def test_a_worker_that_is_cut_off_between_the_copy_and_the_ack_loses_nothing(
    shop: Any, ladder: Ladder, start_worker: Start, asker: Any, request_body: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = shop(times=1)
    await ladder()
    publish = ConfirmedPublisher.publish
    confirmed: list[str] = []

    def cutting(
        self: ConfirmedPublisher, queue: str, exchange: str, key: str, properties: Any, body: bytes, then: Any
    ) -> None:
        def told(settled: Settled) -> None:
            if exchange == RETRY_EXCHANGE and settled is Settled.ACKED and not confirmed:
                confirmed.append(key)
                running.worker.connection.abort()  # nothing is written any more, so the ack is not either
            then(settled)

        publish(self, queue, exchange, key, properties, body, told)

    monkeypatch.setattr(ConfirmedPublisher, "publish", cutting)
    running = await start_worker()
    name = await asker.send("shop", request_body(7))
    assert (await asker.answer(name)).values == [14]
    await running.until(lambda: seen.read_text() == "777" and len(running.of(RequestRetried)) >= 1)
    await asker.until(lambda: len(asker.replies[name]) == 2)  # what came again, and the copy: of the same request
    assert confirmed == ["shop"]
    assert len({reply.body for reply in asker.replies[name]}) == 1
    await running.stop()
    await nothing_is_left(asker)


async def test_what_expires_in_its_lane_after_a_retry_is_sorted_as_expired(
    shop: Any, ladder: Ladder, start_worker: Start, asker: Any, request_body: Any
) -> None:
    shop()
    await ladder(**{"ml-interactive": {"message-ttl": 400}})
    running = await start_worker()
    await asker.send("shop", request_body(13))
    await running.until(lambda: bool(running.of(RequestRetried)))
    await running.stop()
    assert (await taken(asker, EXPIRED)).body == request_body(13)


async def test_what_dies_of_another_cause_after_a_retry_is_not_taken_for_expired(
    shop: Any, ladder: Ladder, start_worker: Start, asker: Any, request_body: Any, node: Any
) -> None:
    shop()
    await ladder()
    running = await start_worker()
    await asker.send("shop", request_body(13))
    await running.until(lambda: bool(running.of(RequestRetried)))
    await running.stop()
    channel = await asker.connection.channel()
    await channel.consume(LANE, lambda delivery: channel.nack(delivery.delivery_tag, requeue=False))
    # Before 3.13 the broker tells the exchange only of a message's first death, which is the end of its delay.
    tells_the_last = Overview(node.version).version >= (3, 13)
    kept = await taken(asker, LETTERS if tells_the_last else EXPIRED)
    assert kept.properties.headers["x-death"][0]["reason"] == "rejected"
    await channel.close()


async def test_of_requests_that_share_a_message_only_one_is_put_off(
    shop: Any, ladder: Ladder, start_worker: Start, asker: Any, vhost: Any, request_body: Any
) -> None:
    seen = shop(times=1)
    await ladder()
    running = await start_worker()
    requester = Requester(
        vhost.options("test-gateway"), service="test", emit=ignore, rights=Rights("direct", "ml-gateway.test.")
    )
    await requester.start()
    await requester.up()
    until_s = time.time() + 30
    asked = [
        requester.ask(Request("shop", request_body(value), until_s, bundle_limit=8, idempotent=True))
        for value in range(1, 9)
    ]
    replies = await asyncio.gather(*asked)
    assert [msgspec.json.decode(each)["outputs"][0]["data"] for each in replies] == [[2 * v] for v in range(1, 9)]
    assert seen.read_text() == "77"
    assert [each.retries for each in running.of(RequestRetried)] == [1]
    await requester.stop()
    await running.stop()
    await nothing_is_left(asker)
