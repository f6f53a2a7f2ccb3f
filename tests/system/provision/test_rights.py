"""Every user, every operation, every object of a real broker, against the page that was written by hand (rights.txt).

Tried with somebody else's AMQP client, over one connection for each user; a refused operation costs its channel.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Iterator
from itertools import chain, product
from typing import Any, NamedTuple

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import ChannelClosedByBroker

from modelmq.broker.management import Management
from modelmq.broker.node import RunningNode
from modelmq.broker.secrets import read_secret, secret_file
from modelmq.messages import ReplyMode
from modelmq.provision import provision
from modelmq.retry_ladder import RUNGS_MS, queue_of
from modelmq.settings import Settings, TopologySettings
from modelmq.topology_names import ModelRoute, user_name
from tests.system.provision import rights_page
from tests.system.provision.rights_page import Page

pytestmark = pytest.mark.broker
Doing = Callable[[BlockingChannel], object]

DEFAULT, BROKER_NAMED = "(default)", "(broker-named)"
STAND_INS = ("ml-worker.vision.x", "ml-worker.money.x", "ml-gateway.x", "amq.gen-x")
LADDER = [queue_of(rung_ms) for rung_ms in RUNGS_MS]
"""Of whose queues the page has the first; no right tells them apart."""
PASSIVE_ASKS_FROM = (4, 3)
"""The first RabbitMQ that asks for a right before it tells whether a queue or an exchange is there."""


class Try(NamedTuple):
    """One operation of one user on one object, and whether the page allows it."""

    what: str
    operation: str
    doing: Doing
    expected: bool


class User:
    """One connection as one user."""

    def __init__(self, node: RunningNode, vhost: str, name: str, password: str) -> None:
        login = pika.PlainCredentials(name, password)
        parameters = pika.ConnectionParameters("127.0.0.1", node.amqp_port, vhost, login)
        self.connection = pika.BlockingConnection(parameters)
        self._channel: BlockingChannel | None = None
        self._confirms = False

    def may(self, doing: Doing, *, publishes: bool = False) -> bool:
        """Try it; False when the broker says 403, which ends the channel. Anything else it says is an error."""
        if self._channel is None:
            self._channel, self._confirms = self.connection.channel(), False
        if publishes and not self._confirms:
            self._channel.confirm_delivery()
            self._confirms = True
        try:
            doing(self._channel)
        except ChannelClosedByBroker as error:
            self._channel = None
            if error.reply_code != 403 or not error.reply_text.startswith("ACCESS_REFUSED"):
                raise
            return False
        return True


class Installation:
    """A provisioned virtual host: its users, and an administrator who puts back what a user may delete."""

    def __init__(self, settings: Settings, node: RunningNode, admin: Management) -> None:
        self.vhost = settings.broker.vhost
        self.management = admin
        self.version = admin.overview().version
        self.exchanges = {each.name: each for each in admin.exchanges(self.vhost)}
        self._settings, self._node = settings, node
        self._opened = [User(node, self.vhost, node.admin_username, node.admin_password)]
        self._names = {DEFAULT: ""}
        self._types = {each.name: each.type for each in admin.queues(self.vhost)}
        # Durable, and nobody's own: what is refused is refused for want of a right.
        for name in STAND_INS:
            self.put(name)

    def user(self, column: str) -> User:
        service = "worker" if column in ("vision", "money") else column
        name = user_name(service, self._settings.topology.environment, column)
        password = read_secret("", secret_file(self._settings.state_dir, name)).password
        self._opened.append(User(self._node, self.vhost, name, password))
        return self._opened[-1]

    def put(self, name: str) -> None:
        """A stand-in for a queue that some service declares for itself."""
        asked = "" if name == "amq.gen-x" else name

        def declare(channel: BlockingChannel) -> None:
            arguments = {"x-queue-type": "classic"}
            self._names[name] = channel.queue_declare(asked, durable=True, arguments=arguments).method.queue

        assert self._opened[0].may(declare)

    def real(self, name: str) -> str:
        """What the broker calls it."""
        return self._names.get(name, name)

    def type_of(self, queue: str) -> str:
        return self._types.get(queue, "classic")

    def state(self) -> tuple[set[str], set[str], set[tuple[str, str, str]]]:
        """All that lasts, by the names of the page."""
        paged = {real: name for name, real in self._names.items() if name != DEFAULT}
        bindings = self.management.bindings(self.vhost)
        return (
            {each.name for each in self.management.exchanges(self.vhost)},
            {paged.get(each.name, each.name) for each in self.management.queues(self.vhost)},
            {(each.source, each.destination, each.routing_key) for each in bindings if each.source},
        )

    def close(self) -> None:
        for user in self._opened:
            user.connection.close()


@pytest.fixture
def installation(
    settings: Settings, node: RunningNode, admin: Management, reply_mode: ReplyMode, caplog: pytest.LogCaptureFixture
) -> Iterator[Installation]:
    caplog.set_level(logging.ERROR, "pika")  # thousands of refusals are no news here
    topology = TopologySettings(
        environment=settings.topology.environment,
        reply_mode=reply_mode,
        roles={"vision": ("digits",), "money": ("fraud",)},
    )
    made = Settings(broker=settings.broker, state_dir=settings.state_dir, topology=topology)
    provision(made, (ModelRoute("digits", ("1",)), ModelRoute("fraud")), admin)
    installation = Installation(made, node, admin)
    yield installation
    installation.close()


def of_exchange(installation: Installation, name: str) -> dict[str, Doing]:
    real, known = installation.real(name), installation.exchanges.get(installation.real(name))
    kind, internal = (known.type, known.internal) if known else ("direct", False)
    return {
        "d": lambda channel: channel.exchange_declare(real, kind, durable=True, internal=internal),
        "p": lambda channel: channel.exchange_declare(real, passive=True),
        "x": lambda channel: channel.exchange_delete(real),
        "w": lambda channel: channel.basic_publish(real, "nobody.asked", b""),
    }


def of_queue(installation: Installation, name: str) -> dict[str, Doing]:
    real, arguments = installation.real(name), {"x-queue-type": installation.type_of(name)}
    return {
        "d": lambda channel: channel.queue_declare(real, durable=True, arguments=arguments),
        "p": lambda channel: channel.queue_declare(real, passive=True),
        "u": lambda channel: channel.queue_purge(real),
        "g": lambda channel: channel.basic_get(real, auto_ack=True),
        "w": lambda channel: channel.basic_publish("", real, b"", mandatory=True),
        "x": lambda channel: channel.queue_delete(real),
    }


def of_new(name: str) -> dict[str, Doing]:
    """Made, and if that was allowed removed again."""
    real = "" if name == BROKER_NAMED else name

    def exchange(channel: BlockingChannel) -> None:
        channel.exchange_declare(real, "fanout", durable=True)
        channel.exchange_delete(real)

    doing: dict[str, Doing] = {"e": new_queue(real, exclusive=True), "d": new_queue(real, durable=True)}
    return doing if name == BROKER_NAMED else doing | {"x": exchange}


def new_queue(name: str, **how: Any) -> Doing:
    return lambda channel: channel.queue_delete(channel.queue_declare(name, **how).method.queue)


def binding(source: str, target: str, *, of_queue: bool) -> dict[str, Doing]:
    key = secrets.token_hex(4)
    if of_queue:
        return {
            "bind": lambda channel: channel.queue_bind(target, source, key),
            "unbind": lambda channel: channel.queue_unbind(target, source, key),
        }
    return {
        "bind": lambda channel: channel.exchange_bind(target, source, key),
        "unbind": lambda channel: channel.exchange_unbind(target, source, key),
    }


def cells(page: Page, installation: Installation, column: str) -> Iterator[Try]:
    """The table's column of one user."""
    passive_is_free = installation.version < PASSIVE_ASKS_FROM
    for kind, operations in (("exchange", of_exchange), ("queue", of_queue)):
        for name in page.names(kind):
            allowed = page.cells[kind, name, column]
            for letter, doing in operations(installation, name).items():
                yield Try(
                    name, letter, doing, letter in allowed or (letter == "p" and passive_is_free and name != DEFAULT)
                )
    for name in page.names("new"):
        for letter, doing in of_new(name).items():
            yield Try(name, letter, doing, letter in page.cells["new", name, column])


def ways(page: Page, installation: Installation, column: str) -> Iterator[Try]:
    """All pairs of objects that messages could be made to flow between."""
    real = installation.real
    for kind in ("queue", "exchange"):
        for source, target in product(page.names("exchange"), page.names(kind)):
            allowed = ("bind", column, source, target) in page.ways
            for operation, doing in binding(real(source), real(target), of_queue=kind == "queue").items():
                yield Try(f"{source} -> {target}", operation, doing, allowed)
    for name, target in product(page.names("new"), page.names("exchange")):
        arguments = {"x-dead-letter-exchange": real(target)}
        doing = new_queue("" if name == BROKER_NAMED else name, exclusive=True, arguments=arguments)
        yield Try(f"{name} -> {target}", "dead-letter", doing, ("dead-letter", column, name, target) in page.ways)


def unexpected(page: Page, installation: Installation) -> list[str]:
    """Everything tried; what the broker took or refused where the page says otherwise."""
    found = []
    for column in page.users:
        user = installation.user(column)
        for each in chain(cells(page, installation, column), ways(page, installation, column)):
            allowed = user.may(each.doing, publishes=each.operation == "w")
            if allowed and each.operation == "x" and each.what in STAND_INS:
                installation.put(each.what)
            if allowed != each.expected:
                found.append(f"{column}: {each.operation} {each.what} was {'allowed' if allowed else 'refused'}")
    return found


@pytest.mark.both_brokers
@pytest.mark.both_reply_modes
def test_every_user_may_do_what_the_page_says_and_nothing_else(
    installation: Installation, reply_mode: ReplyMode
) -> None:
    page = rights_page.read(reply_mode)
    before = installation.state()
    assert {name.replace(DEFAULT, "") for name in page.names("exchange")} == before[0] | {""}
    assert set(page.names("queue")) == before[1] - set(LADDER[1:])
    found = unexpected(page, installation)
    assert not found, "\n".join(found)
    assert installation.state() == before
