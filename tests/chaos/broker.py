"""The broker of a run: one private node with the real topology, what can be done to it, and what is left in it.

The topology, the users and their rights are those that `modelmq topology apply` makes; beside them stands one producer
with a durable reply queue of its own, as an AMQP application would have one.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import subprocess
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import httpx
import msgspec
import pika

from modelmq.broker.install import locate
from modelmq.broker.management import connect
from modelmq.broker.node import NodeSpec, RunningNode, start
from modelmq.broker.processes import identify, wait
from modelmq.provision.apply import provision
from modelmq.runtimes import scan
from modelmq.settings import Settings
from modelmq.supervisor.private_node import with_node
from modelmq.supervisor.routes import routes_of
from tests.chaos.account import Account, DeadLetter

Alarm = Literal["memory", "disk"]
PRODUCER = "chaos-producer"
REPLY_PREFIX = "chaos-reply."
REPLY_QUEUE_LENGTH = 50
"""So short that a producer that stops reading for a while fills it: then the broker refuses replies."""
_EXCLUSIVE = ("ml-worker.", "ml-gateway.", "amq.gen-")
"""Beginnings of queues that end with the connection that declared them."""
_ALARMS = {
    "memory": ("set_vm_memory_high_watermark", "absolute", "2048MB"),
    "disk": ("set_disk_free_limit", "200MB"),
}
_RAISED = {"memory": ("set_vm_memory_high_watermark", "0.00001"), "disk": ("set_disk_free_limit", "100TB")}


class Broker:
    """Started by `start`; its node is another process after every restart, at the same ports."""

    def __init__(self, folder: Path, settings: Settings, home: Path | None = None) -> None:
        self.settings = settings
        """With this broker in it, once it runs."""
        self.producer_password = secrets.token_urlsafe(12)
        self._spec = NodeSpec(directory=folder / "node", home=home)
        self._node: RunningNode | None = None

    @property
    def node(self) -> RunningNode:
        """The one that runs, or ran last."""
        assert self._node is not None
        return self._node

    @property
    def port(self) -> int:
        """Of AMQP, on the loopback address."""
        return self.node.amqp_port

    async def start(self) -> None:
        """The node and everything in it."""
        await self._start()
        self.settings = with_node(self.settings, self.node)
        await asyncio.to_thread(self._provision)

    async def restart(self) -> None:
        """In order, as an operator would."""
        await asyncio.to_thread(self.node.stop)
        await self._start()

    async def kill(self) -> None:
        """SIGKILL; then started again."""
        await asyncio.to_thread(self.kill_node)
        await self._start()

    def kill_node(self) -> None:
        """Only that; returns when the process is gone."""
        process = identify(self.node.pid)
        os.kill(self.node.pid, signal.SIGKILL)
        if process is not None:
            wait([process], 10)
        self.node.stop()

    async def start_again(self) -> None:
        """After `kill_node`."""
        await self._start()

    async def raise_alarm(self, kind: Alarm) -> None:
        """The broker takes nothing from whoever publishes."""
        await asyncio.to_thread(self._control, *_RAISED[kind])

    async def clear_alarm(self, kind: Alarm) -> None:
        """It does again."""
        await asyncio.to_thread(self._control, *_ALARMS[kind])

    async def stop(self) -> None:
        """No process of it is left."""
        if self._node is not None:
            await asyncio.to_thread(self._node.stop)

    async def waiting(self) -> dict[str, int]:
        """Messages that are ready, by queue."""
        return await asyncio.to_thread(self._waiting)

    async def account(self) -> Account:
        """What is left once nothing runs any more; takes the letters out of their queues."""
        return await asyncio.to_thread(self._account)

    async def _start(self) -> None:
        self._node = await asyncio.to_thread(start, self._spec)
        self._spec = msgspec.structs.replace(
            self._spec,
            amqp_port=self._node.amqp_port,
            management_port=int(self._node.management_url.rpartition(":")[2]),
        )

    def _provision(self) -> None:
        catalog = scan(Path(self.settings.models_dir))
        vhost = self.settings.broker.vhost
        with connect(self.settings.broker) as management:
            provision(self.settings, routes_of(catalog), management)
        prefix = REPLY_PREFIX.replace(".", r"\.")
        with self._api() as api:
            admin = self.node.admin_username
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

    def url_of(self, user: str, password: str, port: int) -> str:
        """For a caller, through the proxy that listens on this port."""
        vhost = quote(self.settings.broker.vhost, safe="")
        return f"amqp://{user}:{quote(password, safe='')}@127.0.0.1:{port}/{vhost}"

    def _control(self, *command: str) -> None:
        """`rabbitmqctl`, with the node's own environment, which tells it where the node is."""
        pairs = Path(f"/proc/{self.node.pid}/environ").read_bytes().rstrip(b"\0").split(b"\0")
        environment = {name.decode(): value.decode() for name, _, value in (pair.partition(b"=") for pair in pairs)}
        tool = locate(os.environ).server.with_name("rabbitmqctl")
        subprocess.run([tool, *command], env=environment, check=True, capture_output=True, timeout=60)

    def _waiting(self) -> dict[str, int]:
        with self._channel() as channel:
            return {name: channel.queue_declare(name, passive=True).method.message_count for name in self._queues()}

    def _queues(self) -> list[str]:
        with connect(self.settings.broker) as management:
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
        method, properties, _ = channel.basic_get(queue, auto_ack=True)
        if method is None:
            return None
        headers = properties.headers or {}
        id_ = properties.message_id or properties.correlation_id or ""
        model = queue.removeprefix("ml-dead-letter.")
        return DeadLetter(id_, model, str(headers.get("reason") or headers.get("x-first-death-reason", "")))

    def _channel(self) -> _Channel:
        return _Channel(self.url_of(self.node.admin_username, self.node.admin_password, self.port))

    def _api(self) -> httpx.Client:
        login = (self.node.admin_username, self.node.admin_password)
        return httpx.Client(base_url=f"{self.node.management_url}/api/", auth=login, trust_env=False, timeout=30)

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
