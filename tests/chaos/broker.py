"""What the broker of a run holds: the real topology at first, what is left of the requests at the end.

The topology, the users and their rights are those that `modelmq topology apply` makes; beside them stands one producer
with a durable reply queue of its own, as an AMQP application would have one.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import httpx
import pika

from modelmq.broker.management import connect
from modelmq.provision.apply import provision
from modelmq.runtimes import scan
from modelmq.settings import Settings
from modelmq.supervisor.private_node import with_node
from modelmq.supervisor.routes import routes_of
from tests.chaos.account import Account, DeadLetter
from tests.chaos.places import Place
from tests.chaos.question import id_in
from tests.nodes import order

Alarm = Literal["memory", "disk"]
PRODUCER = "chaos-producer"
REPLY_PREFIX = "chaos-reply."
REPLY_QUEUE_LENGTH = 50
"""So short that a producer that stops reading for a while fills it: then the broker refuses replies."""
_EXCLUSIVE = ("ml-worker.", "ml-gateway.", "amq.gen-")
"""Beginnings of queues that end with the connection that declared them."""


class Broker:
    """What is in the broker at a place, whose nodes come and go."""

    def __init__(self, place: Place, settings: Settings) -> None:
        self.place = place
        self.settings = settings
        """With this broker in it, once it runs."""
        self.producer_password = secrets.token_urlsafe(12)

    async def start(self) -> None:
        """The nodes and everything in them."""
        await asyncio.to_thread(self.place.start)
        self.settings = with_node(self.settings, self.place.node)
        await asyncio.to_thread(self._provision)

    async def raise_alarm(self, kind: Alarm) -> None:
        """The broker takes nothing from whoever publishes."""
        await self._alarm("set_alarm({Which, []})", kind)

    async def clear_alarm(self, kind: Alarm) -> None:
        """It does again."""
        await self._alarm("clear_alarm(Which)", kind)

    async def _alarm(self, call: str, kind: Alarm) -> None:
        """What the broker's own monitors of memory and disk do."""
        expression = f"Which = {{resource_limit, {kind}, node()}}, rabbit_alarm:{call}."
        await asyncio.to_thread(order, self.place.node.directory, expression)

    async def stop(self) -> None:
        """No process of it is left."""
        await asyncio.to_thread(self.place.stop)

    async def waiting(self) -> dict[str, int]:
        """Messages that are ready, by queue."""
        return await asyncio.to_thread(self._waiting)

    async def account(self) -> Account:
        """What is left once nothing runs any more; takes the letters out of their queues."""
        return await asyncio.to_thread(self._account)

    def _provision(self) -> None:
        catalog = scan(Path(self.settings.models_dir))
        vhost = self.settings.broker.vhost
        with connect(with_node(self.settings, self.place.node).broker) as management:
            provision(self.settings, routes_of(catalog), management)
        prefix = REPLY_PREFIX.replace(".", r"\.")
        with self._api() as api:
            admin = self.place.node.admin_username
            self._put(api, f"permissions/{vhost}/{admin}", {"configure": ".*", "write": ".*", "read": ".*"})
            self._put(api, f"users/{PRODUCER}", {"password": self.producer_password, "tags": ""})
            rights = {"configure": "^$", "write": "^ml-model-exchange$", "read": f"^{prefix}"}
            self._put(api, f"permissions/{vhost}/{PRODUCER}", rights)
            bounds = {"max-length": REPLY_QUEUE_LENGTH, "overflow": "reject-publish"}
            policy = {"pattern": f"^{prefix}", "apply-to": "queues", "definition": bounds, "priority": 1}
            self._put(api, f"policies/{vhost}/chaos-reply", policy)

    async def make_reply_queue(self, name: str) -> None:
        """Durable, and bound as reply mode `queue` wants it."""

        def make() -> None:
            with self._channel() as channel:
                channel.queue_declare(name, durable=True, arguments={"x-queue-type": "quorum"})
                if self.settings.topology.reply_mode == "queue":
                    channel.queue_bind(name, "ml-reply-exchange", name)

        await asyncio.to_thread(make)

    def url_of(self, user: str, password: str, ports: Sequence[int]) -> str:
        """For a caller, through the proxies that listen on these ports."""
        vhost = quote(self.settings.broker.vhost, safe="")
        hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
        return f"amqp://{user}:{quote(password, safe='')}@{hosts}/{vhost}"

    def _waiting(self) -> dict[str, int]:
        with self._channel() as channel:
            return {name: channel.queue_declare(name, passive=True).method.message_count for name in self._queues()}

    def _queues(self) -> list[str]:
        with connect(with_node(self.settings, self.place.node).broker) as management:
            names = [queue.name for queue in management.queues(self.settings.broker.vhost)]
        return [name for name in names if not name.startswith(_EXCLUSIVE)]

    def _account(self) -> Account:
        left: dict[str, int] = {}
        letters: list[DeadLetter] = []
        expired: list[str] = []
        names = self._queues()
        with self._channel() as channel:
            for name in names:
                count = channel.queue_declare(name, passive=True).method.message_count
                if name.startswith("ml-dead-letter.") or name == "ml-expired":
                    found = [self._letter(channel, name) for _ in range(count)]
                    letters += [each for each in found if each is not None and name != "ml-expired"]
                    expired += [each.id for each in found if each is not None and name == "ml-expired"]
                else:
                    left[name] = count
        return Account(letters=tuple(letters), expired=frozenset(expired), left=left)

    def _letter(self, channel: pika.adapters.blocking_connection.BlockingChannel, queue: str) -> DeadLetter | None:
        method, properties, body = channel.basic_get(queue, auto_ack=True)
        if method is None:
            return None
        headers = properties.headers or {}
        # The Python client names its messages itself, so what was asked is told by the body.
        id_ = id_in(body) or properties.message_id or ""
        model = queue.removeprefix("ml-dead-letter.")
        return DeadLetter(id_, model, str(headers.get("reason") or headers.get("x-first-death-reason", "")))

    def _channel(self) -> _Channel:
        node = self.place.node
        return _Channel(self.url_of(node.admin_username, node.admin_password, [node.amqp_port]))

    def _api(self) -> httpx.Client:
        node = self.place.node
        login = (node.admin_username, node.admin_password)
        return httpx.Client(base_url=f"{node.management_url}/api/", auth=login, trust_env=False, timeout=30)

    def _put(self, api: httpx.Client, path: str, body: dict[str, object]) -> None:
        api.put(path, json=body).raise_for_status()


class _Channel:
    """The administrator's own, for one block; past every proxy."""

    def __init__(self, url: str) -> None:
        self._connection = pika.BlockingConnection(pika.URLParameters(url))

    def __enter__(self) -> pika.adapters.blocking_connection.BlockingChannel:
        return self._connection.channel()

    def __exit__(self, *_: object) -> None:
        self._connection.close()
