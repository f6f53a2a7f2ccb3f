"""A link whose secret changes: the new connection comes first, then the old one is finished with."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from modelmq.amqp import Connection, Credentials, Link, link, options_from_url
from modelmq.errors import AccessRefused, ChannelClosed, ConfigError
from modelmq.events import BrokerConnected, BrokerDisconnected, BrokerDrained, BrokerHandedOver, BrokerHandOverFailed
from modelmq.tls import TlsOptions

pytestmark = pytest.mark.broker
PATIENCE_S = 30.0


async def soon(awaitable: Any) -> Any:
    return await asyncio.wait_for(awaitable, PATIENCE_S)


class Owner:
    """A service's side of a link, and the secret that it connects with."""

    def __init__(self, vhost: Any) -> None:
        self.right = Credentials(vhost.username, vhost.password)
        self.secret = self.right
        self.unreadable = ""
        self.events: list[Any] = []
        self.set_up_with: list[Connection] = []
        self.retired: list[Connection] = []
        self.failures: list[Exception] = []
        self.during_set_up: Callable[[], Awaitable[None]] | None = None
        self.may_retire = asyncio.Event()
        self.may_retire.set()
        self.link: Link
        self._news = asyncio.Event()

    def credentials(self) -> Credentials:
        if self.unreadable:
            raise ConfigError(self.unreadable)
        return self.secret

    def emit(self, event: Any) -> None:
        self.events.append(event)
        self._news.set()

    async def set_up(self, connection: Connection) -> None:
        self.set_up_with.append(connection)
        if self.during_set_up is not None:
            await self.during_set_up()
        if self.failures:
            raise self.failures.pop(0)
        await connection.channel()

    async def retire(self, connection: Connection) -> None:
        self.retired.append(connection)
        self._news.set()
        await self.may_retire.wait()
        if self.failures:
            raise self.failures.pop(0)

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    async def until(self, condition: Callable[[], Any]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                self._news.clear()
                await self._news.wait()


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "LOOK_EVERY_S", 0.02)
    monkeypatch.setattr("modelmq.amqp.renewal.FIRST_DELAY_S", 0.02)


@pytest.fixture
async def second(vhost: Any, _admin: Any) -> AsyncIterator[Credentials]:
    """Another user with the same rights."""
    name = f"{vhost.name}~2"
    await asyncio.to_thread(_admin.call, "PUT", f"users/{name}", {"password": "another", "tags": ""})
    rights = {"configure": ".*", "write": ".*", "read": ".*"}
    await asyncio.to_thread(_admin.call, "PUT", f"permissions/{vhost.name}/{name}", rights)
    yield Credentials(name, "another")
    await asyncio.to_thread(_admin.call, "DELETE", f"users/{name}")


@pytest.fixture
async def owner(vhost: Any, second: Credentials) -> AsyncIterator[Owner]:
    owner = Owner(vhost)
    options = msgspec.structs.replace(vhost.options(), credentials=owner.credentials)
    owner.link = Link(options, owner.set_up, service="test", emit=owner.emit, retire=owner.retire)
    yield owner
    await soon(owner.link.stop())
    assert all(connection.closed.done() for connection in owner.set_up_with)


async def test_the_new_connection_comes_first_then_the_old_one_is_finished_with(
    owner: Owner, second: Credentials
) -> None:
    await owner.link.start()
    old = await soon(owner.link.up())
    owner.may_retire.clear()
    owner.secret = second
    await owner.until(lambda: owner.retired)
    new = owner.link.connection
    assert owner.set_up_with == [old, new]
    assert owner.retired == [old]
    assert not old.closed.done()
    assert owner.of(BrokerDrained) == []
    (handed_over,) = owner.of(BrokerHandedOver)
    assert handed_over.user == second.username
    owner.may_retire.set()
    await owner.until(lambda: owner.of(BrokerDrained))
    assert old.closed.result() is None
    assert not new.closed.done()
    assert [event.user for event in owner.of(BrokerDrained)] == [owner.right.username]
    assert (len(owner.of(BrokerConnected)), owner.of(BrokerDisconnected)) == (1, [])


async def test_there_and_back_again_one_after_the_other(owner: Owner, second: Credentials) -> None:
    await owner.link.start()
    await soon(owner.link.up())
    owner.may_retire.clear()
    owner.secret = second
    await owner.until(lambda: owner.retired)
    owner.secret = owner.right  # while the first is still finished with
    await asyncio.sleep(0.2)
    assert len(owner.of(BrokerHandedOver)) == 1
    owner.may_retire.set()
    await owner.until(lambda: len(owner.of(BrokerDrained)) == 2)
    assert [event.user for event in owner.of(BrokerHandedOver)] == [second.username, owner.right.username]


async def test_a_login_that_is_refused_leaves_everything_as_it_was_until_it_works(
    owner: Owner, second: Credentials
) -> None:
    await owner.link.start()
    old = await soon(owner.link.up())
    owner.secret = Credentials(second.username, "wrong")
    await owner.until(lambda: len(owner.of(BrokerHandOverFailed)) == 3)
    assert owner.link.connection is old
    assert not old.closed.done()
    failed = owner.of(BrokerHandOverFailed)[0]
    assert f'refused the user "{second.username}"' in failed.reason
    assert "wrong" not in failed.reason
    assert failed.retry_in_s > 0
    owner.secret = second
    await owner.until(lambda: owner.of(BrokerDrained))
    assert owner.link.connection is not old
    assert owner.of(BrokerDisconnected) == []


async def test_a_refused_set_up_and_a_bug_in_it_do_the_same(
    owner: Owner, second: Credentials, no_complaints: Any
) -> None:
    await owner.link.start()
    old = await soon(owner.link.up())
    owner.failures = [ChannelClosed("it may not", reply_code=403), ZeroDivisionError("a bug")]
    owner.may_retire.clear()
    owner.secret = second
    await owner.until(lambda: owner.retired)
    refused, bug = owner.of(BrokerHandOverFailed)
    assert refused.reason == "it may not"
    assert "a bug" in bug.reason
    assert owner.set_up_with[0] is old
    assert [connection.closed.done() for connection in owner.set_up_with] == [False, True, True, False]
    assert [type(complaint["exception"]) for complaint in no_complaints] == [ZeroDivisionError]
    no_complaints.clear()
    owner.may_retire.set()
    await owner.until(lambda: owner.of(BrokerDrained))


async def test_what_cannot_be_read_is_told_once_and_changes_nothing(owner: Owner) -> None:
    await owner.link.start()
    old = await soon(owner.link.up())
    owner.unreadable = "The file is gone."
    await owner.until(lambda: owner.of(BrokerHandOverFailed))
    await asyncio.sleep(0.2)  # ten looks
    assert [event.reason for event in owner.of(BrokerHandOverFailed)] == ["The file is gone."]
    owner.unreadable = ""
    await asyncio.sleep(0.2)
    assert owner.link.connection is old
    assert owner.of(BrokerHandedOver) == []


async def test_a_bug_in_the_retirement_is_told_and_the_old_connection_closed(
    owner: Owner, second: Credentials, no_complaints: Any
) -> None:
    await owner.link.start()
    old = await soon(owner.link.up())
    owner.may_retire.clear()
    owner.secret = second
    await owner.until(lambda: owner.retired)
    owner.failures = [ZeroDivisionError("a bug")]
    owner.may_retire.set()
    await owner.until(lambda: owner.of(BrokerDrained))
    assert old.closed.done()
    assert len(no_complaints) == 1
    no_complaints.clear()


async def test_an_old_connection_that_ends_by_itself_in_the_middle_is_no_loss(
    owner: Owner, second: Credentials
) -> None:
    await owner.link.start()
    old = await soon(owner.link.up())

    async def lose() -> None:
        old.abort()
        await asyncio.shield(old.closed)

    owner.during_set_up = lose
    owner.secret = second
    await owner.until(lambda: owner.of(BrokerDrained))
    assert owner.link.connection is owner.set_up_with[1]
    assert owner.of(BrokerDisconnected) == []


async def test_a_new_connection_that_ends_while_the_old_is_finished_with_is_made_anew(
    owner: Owner, second: Credentials
) -> None:
    await owner.link.start()
    await soon(owner.link.up())
    owner.may_retire.clear()
    owner.secret = second
    await owner.until(lambda: owner.retired)
    assert owner.link.connection is not None
    owner.link.connection.abort()
    await owner.until(lambda: len(owner.of(BrokerConnected)) == 2)
    owner.may_retire.set()
    await owner.until(lambda: owner.of(BrokerDrained))


@pytest.mark.parametrize("turns", [0, 1, 3, 8, 21, 55])
async def test_it_may_be_stopped_in_the_middle(owner: Owner, second: Credentials, turns: int) -> None:
    """That nothing stays open is the fixture's to see."""
    await owner.link.start()
    await soon(owner.link.up())
    reached = asyncio.Event()

    async def here() -> None:
        reached.set()

    owner.during_set_up = here
    owner.may_retire.clear()
    owner.secret = second
    await soon(reached.wait())
    for _ in range(turns):
        await asyncio.sleep(0)
    await soon(owner.link.stop())


async def test_a_changed_certificate_file_is_a_reason_too(vhost: Any, owner: Owner, tmp_path: Path) -> None:
    ca_file = tmp_path / "ca.pem"
    shutil.copy(vhost.node.ca_file, ca_file)
    options = options_from_url(vhost.tls_url, tls=TlsOptions(str(ca_file)))
    owner.link = Link(options, owner.set_up, service="test", emit=owner.emit, retire=owner.retire)
    await owner.link.start()
    old = await soon(owner.link.up())
    ca_file.write_text("no certificate")
    await owner.until(lambda: owner.of(BrokerHandOverFailed))
    assert owner.link.connection is old
    shutil.copy(vhost.node.ca_file, ca_file)
    with ca_file.open("a") as file:
        file.write("\n")
    await owner.until(lambda: owner.of(BrokerDrained))
    assert owner.link.connection is not old


async def test_at_the_start_it_is_as_ever(owner: Owner) -> None:
    owner.secret = Credentials(owner.right.username, "wrong")
    await owner.link.start()
    await owner.until(lambda: len(owner.of(BrokerDisconnected)) == 2)
    owner.secret = owner.right
    with contextlib.suppress(AccessRefused):
        await soon(owner.link.up())
    assert owner.of(BrokerHandedOver) == owner.of(BrokerHandOverFailed) == []


async def test_a_stop_that_comes_with_the_end_of_the_connection_is_heard(owner: Owner) -> None:
    await owner.link.start()
    connection = await soon(owner.link.up())
    connection.abort()
    await soon(asyncio.shield(connection.closed))
    closing = asyncio.create_task(connection.close())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await soon(closing)
