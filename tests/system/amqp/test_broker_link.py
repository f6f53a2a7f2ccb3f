"""A link keeps its connection: over dead nodes, broken and closed connections, and set-ups that fail."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import msgspec
import pytest

from modelmq.amqp import Connection, Credentials, Endpoint, Link, Properties
from modelmq.errors import ChannelClosed, ConnectFailed, ConnectionLost
from modelmq.events import BrokerBlocked, BrokerConnected, BrokerDisconnected, Event

pytestmark = pytest.mark.broker
PATIENCE_S = 30.0


async def soon(awaitable: Any) -> Any:
    return await asyncio.wait_for(awaitable, PATIENCE_S)


class Owner:
    """A service's side of a link: what it sets up, and what it hears."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.set_ups = 0
        self.failures: list[BaseException] = []
        self.link: Link
        self._changed = asyncio.Condition()

    def emit(self, event: Event) -> None:
        self.events.append(event)

    async def set_up(self, connection: Connection) -> None:
        self.set_ups += 1
        if self.failures:
            raise self.failures.pop(0)
        await (await connection.channel()).declare_queue(exclusive=True)

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


@pytest.fixture
async def owners() -> AsyncIterator[Any]:
    made: list[Owner] = []

    def make(options: Any) -> Owner:
        owner = Owner()
        owner.link = Link(options, owner.set_up, service="test", emit=owner.emit)
        made.append(owner)
        return owner

    yield make
    for owner in made:
        await soon(owner.link.stop())


def broker_closes(vhost: Any, connection: Connection) -> None:
    """The broker's own end of a connection, as an operator asks for it."""
    own = connection._transport.get_extra_info("sockname")
    name = f"127.0.0.1:{own[1]} -> 127.0.0.1:{vhost.node.amqp_port}"
    token = base64.b64encode(f"{vhost.node.admin_username}:{vhost.node.admin_password}".encode()).decode()
    url = f"{vhost.node.management_url}/api/connections/{quote(name, safe='')}"
    headers = {"Authorization": f"Basic {token}", "X-Reason": "an operator said so"}
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    until = time.monotonic() + 60
    while time.monotonic() < until:  # the management learns of a connection some seconds later
        try:
            opener.open(urllib.request.Request(url, headers=headers, method="DELETE"), timeout=10).close()
        except urllib.error.HTTPError as error:
            error.close()
            if error.code != 404:
                raise
            time.sleep(0.05)
        else:
            return
    raise AssertionError(f"The management never knew the connection {name}.")


async def test_start_up_stop(vhost: Any, owners: Any) -> None:
    owner = owners(vhost.options())
    assert (owner.link.connection, owner.link.problem) == (None, "not connected yet")
    await owner.link.start()
    await owner.link.start()
    connection = await soon(owner.link.up())
    assert owner.link.connection is connection
    assert owner.set_ups == 1
    assert owner.events == [BrokerConnected("test", str(vhost.options().endpoints[0]))]
    await soon(owner.link.stop())
    await soon(owner.link.stop())
    assert connection.closed.result() is None
    assert owner.link.connection is None
    with pytest.raises(ConnectionLost, match="stopped"):
        await owner.link.up()


async def test_dead_nodes_are_passed_over(vhost: Any, owners: Any, unused_tcp_port: int) -> None:
    options = vhost.options()
    dead = tuple(Endpoint("127.0.0.1", port) for port in (unused_tcp_port, 1))
    for _ in range(5):  # the order is drawn
        owner = owners(msgspec.structs.replace(options, endpoints=(*dead, *options.endpoints)))
        await owner.link.start()
        connection = await soon(owner.link.up())
        assert connection.endpoint == options.endpoints[0]
        assert owner.of(BrokerDisconnected) == []


async def test_a_broken_connection_is_made_anew(vhost: Any, owners: Any) -> None:
    owner = owners(vhost.options())
    await owner.link.start()
    seen = set()
    for round_ in range(1, 4):
        connection = await soon(owner.link.up())
        seen.add(connection)
        assert owner.set_ups == round_
        connection.abort()
        await soon(asyncio.shield(connection.closed))
        await asyncio.sleep(0)
        assert owner.link.connection is None
    await soon(owner.link.up())
    assert len(seen) == 3
    assert [type(event) for event in owner.events] == [BrokerConnected, BrokerDisconnected] * 3 + [BrokerConnected]
    assert all(0 < event.retry_in_s <= 2.0 for event in owner.of(BrokerDisconnected))


async def test_the_brokers_own_close_is_told_and_overcome(vhost: Any, owners: Any) -> None:
    owner = owners(vhost.options())
    await owner.link.start()
    connection = await soon(owner.link.up())
    await asyncio.to_thread(broker_closes, vhost, connection)  # in a thread, so that heartbeats go on
    reason = await soon(asyncio.shield(connection.closed))
    assert isinstance(reason, ConnectionLost)
    assert reason.reply_code == 320
    assert "an operator said so" in reason.message
    again = await soon(owner.link.up())
    assert again is not connection
    (event,) = owner.of(BrokerDisconnected)
    assert event.reason == reason.message


async def test_a_broker_that_is_not_there_is_asked_again_and_the_problem_told(
    vhost: Any, owners: Any, unused_tcp_port: int
) -> None:
    options = msgspec.structs.replace(vhost.options(), endpoints=(Endpoint("127.0.0.1", unused_tcp_port),))
    owner = owners(options)
    await owner.link.start()
    async with asyncio.timeout(PATIENCE_S):
        while len(owner.events) < 3:  # noqa: ASYNC110 - events wake nobody
            await asyncio.sleep(0.01)
    delays = [event.retry_in_s for event in owner.of(BrokerDisconnected)]
    assert len(delays) >= 3
    assert "refused the connection" in owner.link.problem
    assert owner.set_ups == 0


async def test_a_refused_set_up_is_tried_again(vhost: Any, owners: Any) -> None:
    owner = owners(vhost.options())
    owner.failures = [ChannelClosed("no queue yet", reply_code=404), ConnectFailed("neither")]
    await owner.link.start()
    await soon(owner.link.up())
    assert owner.set_ups == 3
    assert [event.reason for event in owner.of(BrokerDisconnected)] == ["no queue yet", "neither"]


async def test_a_bug_in_the_set_up_comes_out_of_up(vhost: Any, owners: Any) -> None:
    owner = owners(vhost.options())
    owner.failures = [ZeroDivisionError("a bug")]
    await owner.link.start()
    with pytest.raises(ZeroDivisionError, match="a bug"):
        await soon(owner.link.up())
    assert owner.link.connection is None
    with contextlib.suppress(ZeroDivisionError):
        await soon(owner.link.stop())
    await soon(owner.link.stop())


async def test_a_bug_in_a_later_set_up_is_told_and_overcome(vhost: Any, owners: Any, no_complaints: Any) -> None:
    owner = owners(vhost.options())
    await owner.link.start()
    first = await soon(owner.link.up())
    owner.failures = [ZeroDivisionError("a bug")]
    first.abort()
    await soon(first.closed)
    second = await soon(owner.link.up())
    assert second is not first
    assert owner.set_ups == 3
    assert "a bug" in owner.of(BrokerDisconnected)[-1].reason
    (complaint,) = no_complaints
    assert isinstance(complaint["exception"], ZeroDivisionError)
    no_complaints.clear()


async def test_a_wrong_password_is_asked_for_again(vhost: Any, owners: Any) -> None:
    passwords = iter(["old", "older"])
    options = msgspec.structs.replace(
        vhost.options(), credentials=lambda: Credentials(vhost.username, next(passwords, vhost.password))
    )
    owner = owners(options)
    await owner.link.start()
    await soon(owner.link.up())
    assert len(owner.of(BrokerDisconnected)) == 2
    assert "refused the user" in owner.of(BrokerDisconnected)[0].reason


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 5, 8, 13, 21, 34])
async def test_it_may_be_stopped_at_any_time(vhost: Any, owners: Any, turns: int) -> None:
    owner = owners(vhost.options())
    await owner.link.start()
    waiting = asyncio.create_task(owner.link.up())
    for _ in range(turns):
        await asyncio.sleep(0)
    await soon(owner.link.stop())
    (result,) = await soon(asyncio.gather(waiting, return_exceptions=True))
    assert isinstance(result, (ConnectionLost, Connection))
    assert owner.link.connection is None


async def test_who_waits_may_give_up_and_the_link_lives_on(vhost: Any, owners: Any) -> None:
    owner = owners(vhost.options())
    await owner.link.start()
    before = asyncio.all_tasks()
    waiting = asyncio.create_task(owner.link.up())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await asyncio.sleep(0)  # what it waited with is cancelled too, and ends now
    assert asyncio.all_tasks() <= before
    await soon(owner.link.up())


async def test_alarms_are_events(peer: Any, owners: Any) -> None:
    from pamqp import commands  # noqa: PLC0415 - the one test here that needs no broker

    heard = asyncio.Event()

    async def alarms(peer: Any) -> None:
        await peer.handshake()
        await peer.open_channel()
        await peer.expect(commands.Queue.Declare)
        peer.send(commands.Queue.DeclareOk("q", 0, 0), 1)
        peer.send(commands.Connection.Blocked("low on disk"))
        peer.send(commands.Connection.Unblocked())
        await peer.expect(commands.Connection.Close)
        peer.send(commands.Connection.CloseOk())

    async with peer(alarms) as options:
        owner = owners(options)
        emit = owner.emit
        owner.link._emit = lambda event: (emit(event), heard.set() if event == BrokerBlocked("test", False) else None)
        await owner.link.start()
        await soon(heard.wait())
        assert owner.of(BrokerBlocked) == [BrokerBlocked("test", True, "low on disk"), BrokerBlocked("test", False)]
        await soon(owner.link.stop())


async def test_nothing_of_an_old_connection_lives_on(vhost: Any, owners: Any) -> None:
    owner = owners(vhost.options())
    await owner.link.start()
    old = await soon(owner.link.up())
    channel = await old.channel()
    old.abort()
    await soon(asyncio.shield(old.closed))
    await soon(owner.link.up())
    with pytest.raises(ConnectionLost):
        channel.publish("", "q", Properties(), b"")
    with pytest.raises(ConnectionLost):
        await old.channel()
