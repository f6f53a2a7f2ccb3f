"""A requester whose login changes: new requests go by the new connection, earlier replies come by the old."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from modelmq.amqp import Credentials, link
from modelmq.client import shard
from modelmq.events import BrokerDisconnected, BrokerDrained, BrokerHandedOver
from modelmq.messages import CANCEL_TYPE

pytestmark = [pytest.mark.broker, pytest.mark.both_reply_modes]


class Login:
    """Of the one user there is, told in two ways so that it counts as changed."""

    def __init__(self, vhost: Any) -> None:
        self.now = Credentials(vhost.username, vhost.password)

    def changes(self, admin: Any, vhost: Any) -> None:
        admin.call("PUT", f"users/{vhost.name}", {"password": "another", "tags": ""})
        self.now = Credentials(vhost.username, "another")


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "LOOK_EVERY_S", 0.02)


@pytest.fixture
async def asker(vhost: Any, broker: Any, asking: Callable[..., Awaitable[Any]], _admin: Any) -> Any:
    """With `hand_over`, which returns once new requests go by another connection."""
    await broker.provision()
    login = Login(vhost)
    asker = await asking(options=msgspec.structs.replace(vhost.options("test"), credentials=lambda: login.now))

    async def hand_over() -> None:
        login.changes(_admin, vhost)
        await asker.events.until(lambda: asker.of(BrokerHandedOver))

    asker.hand_over = hand_over
    return asker


async def test_a_request_under_way_is_answered_over_the_old_connection(asker: Any, broker: Any) -> None:
    await broker.echo(answering=False)
    early = asyncio.create_task(asker.ask(b"early", idempotent=False))
    (first,) = await broker.requests.count(1)
    await asker.hand_over()
    late = asyncio.create_task(asker.ask(b"late"))
    _, second = await broker.requests.count(2)
    assert first.properties.reply_to != second.properties.reply_to
    assert asker.of(BrokerDrained) == []
    broker.answer(second, b"second")
    assert await late == b"second"
    assert asker.of(BrokerDrained) == []
    broker.answer(first, b"first")
    assert await early == b"first"
    await asker.events.until(lambda: asker.of(BrokerDrained))
    assert len(broker.requests.items) == 2
    assert asker.of(BrokerDisconnected) == []


async def test_what_takes_too_long_is_sent_again_if_it_may_run_twice(
    asker: Any, broker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard, "HAND_OVER_S", 0.05)
    await broker.echo(answering=False)
    twice = asyncio.create_task(asker.ask(b"twice"))
    once = asyncio.create_task(asker.ask(b"once", idempotent=False))
    await broker.requests.count(2)
    await asker.hand_over()
    *_, again = await broker.requests.count(3)
    assert again.body == b"twice"
    broker.answer(again, b"again")
    assert await twice == b"again"
    assert asker.of(BrokerDrained) == []
    broker.answer(next(each for each in broker.requests.items if each.body == b"once"), b"at last")
    assert await once == b"at last"
    await asker.events.until(lambda: asker.of(BrokerDrained))
    assert len(broker.requests.items) == 3


async def test_a_request_is_withdrawn_by_the_way_it_was_sent(asker: Any, broker: Any) -> None:
    await broker.watch_control()
    await broker.echo(answering=False)
    early = asyncio.create_task(asker.ask(b"early"))
    (first,) = await broker.requests.count(1)
    await asker.hand_over()
    early.cancel()
    (cancel,) = await broker.control.count(1)
    assert (cancel.properties.type, cancel.properties.reply_to) == (CANCEL_TYPE, first.properties.reply_to)
    await asker.events.until(lambda: asker.of(BrokerDrained))


async def test_an_old_connection_that_is_lost_costs_nothing(asker: Any, broker: Any) -> None:
    await broker.echo(answering=False)
    early = asyncio.create_task(asker.ask(b"early"))
    await broker.requests.count(1)
    (only,) = asker.requester._shards
    old = only._link.connection
    await asker.hand_over()
    old.abort()
    _, again = await broker.requests.count(2)
    broker.answer(again, b"again")
    assert await early == b"again"
    assert asker.of(BrokerDisconnected) == []
