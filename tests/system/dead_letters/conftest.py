"""An installation of each broker, with the operator's secret, whose dead letters the tests make, look at and send."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from modelmq.amqp import Channel, Connection, Delivery, Properties, Settled, connect
from modelmq.broker.management import Management
from modelmq.broker.node import RunningNode
from modelmq.cli.app import app
from modelmq.process.broker_access import connection_options
from modelmq.provision import apply
from modelmq.provision.accounts import secrets_dir
from modelmq.provision.ownership import parameter_name
from modelmq.settings import BrokerSettings, Settings, TopologySettings
from modelmq.topology import build
from modelmq.topology_names import ModelRoute

PATIENCE_S = 30.0
MODELS = (ModelRoute("digits", ("1",)), ModelRoute("other", ("1",), routing_key="alias"))
TOPOLOGY = {"dead_letter_max_length": 1600, "max_length": 5000}


@dataclass(frozen=True)
class Said:
    """What a command printed, and its status."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True)
class Installation:
    """Settings, and a file with them for commands."""

    settings: Settings
    config: Path
    node: RunningNode

    def dead(self, command: str, *arguments: str, **options: Any) -> Said:
        """`modelmq dead …` in this process."""
        ran = CliRunner().invoke(app, ["dead", command, *arguments, "--config", str(self.config)], **options)
        assert ran.exception is None or isinstance(ran.exception, SystemExit), ran.exception
        return Said(ran.exit_code, ran.stdout, ran.stderr)

    def admin(self) -> Management:
        return Management(self.node.management_url, self.node.admin_username, self.node.admin_password)


class Office:
    """What the tests do to queues themselves, as the administrator."""

    def __init__(self, connection: Connection, channel: Channel) -> None:
        self.connection = connection
        self.channel = channel

    async def put(self, exchange: str, key: str, *bodies: bytes, **properties: Any) -> None:
        """Publish, and wait until the broker has all of it."""
        ends = [asyncio.get_running_loop().create_future() for _ in bodies]
        for at, (body, end) in enumerate(zip(bodies, ends, strict=True)):
            given = {"delivery_mode": 2, "message_id": f"r-{at}", **properties}
            self.channel.publish(exchange, key, Properties(**given), body, mandatory=True, on_settled=end.set_result)
            await self.connection.drain()
        assert set(await asyncio.wait_for(asyncio.gather(*ends), PATIENCE_S)) <= {Settled.ACKED}

    async def refuses(self, exchange: str, key: str) -> None:
        """Publish until the queue takes no more: quorum queues notice late."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                end: asyncio.Future[Settled] = asyncio.get_running_loop().create_future()
                self.channel.publish(exchange, key, Properties(), b"filler", on_settled=end.set_result)
                if await end is Settled.NACKED:
                    return

    async def letters(self, model: str, *bodies: bytes, **headers: Any) -> None:
        """As a worker writes them."""
        told = {"reason": "model_process_died", "attempts": 3, "error": "It died.", "died-at": now_ms(), **headers}
        told = {name: value for name, value in told.items() if value is not None}
        await self.put(
            "ml-dead-letter-exchange", f"{model}.1", *bodies, headers=told, content_type="application/json",
            reply_to="amq.gen-stale", correlation_id="c",
        )  # fmt: skip

    async def count(self, queue: str) -> int:
        """Messages that are ready."""
        return (await self.channel.count_queue(queue))[0]

    async def until(self, queue: str, count: int) -> None:
        """Wait until so many are ready."""
        async with asyncio.timeout(PATIENCE_S):
            while await self.count(queue) != count:  # noqa: ASYNC110 - the broker tells nobody
                await asyncio.sleep(0.01)

    async def take(self, queue: str) -> Sequence[Delivery]:
        """Everything that is there now, for good."""
        channel = await self.connection.channel()
        count, taken, done = await self.count(queue), [], asyncio.Event()

        def on_delivery(delivery: Delivery) -> None:
            taken.append(delivery)
            if len(taken) >= count:
                done.set()

        if count:
            tag = await channel.consume(queue, on_delivery, no_ack=True)
            await asyncio.wait_for(done.wait(), PATIENCE_S)
            await channel.cancel(tag)
        await channel.close()
        return taken


def now_ms() -> int:
    return int(time.time() * 1000)


@pytest.fixture(scope="session")
def system_installation(system_node: RunningNode, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    yield from _installed(system_node, tmp_path_factory.mktemp("dead"))


@pytest.fixture(scope="session")
def installation43(node43: RunningNode, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    yield from _installed(node43, tmp_path_factory.mktemp("dead43"))


def _installed(node: RunningNode, folder: Path) -> Iterator[Installation]:
    installation = _install(node, folder)
    yield installation
    settings = installation.settings
    with installation.admin() as admin:
        for user in admin.users():
            if user.name.endswith(f".{settings.topology.environment}"):
                admin.delete_user(user.name)
        admin.delete_vhost(settings.broker.vhost)
        admin.delete_global_parameter(parameter_name(settings.broker.vhost))


def _install(node: RunningNode, folder: Path) -> Installation:
    environment = f"t{secrets.token_hex(4)}"
    broker = BrokerSettings(
        hosts=(f"127.0.0.1:{node.amqp_port}",), vhost=f"ml-{environment}", management_url=node.management_url
    )
    topology = TopologySettings(environment=environment, **TOPOLOGY)
    settings = Settings(broker=broker, topology=topology, state_dir=str(folder / "state"))
    config = folder / "modelmq.toml"
    config.write_text(
        f'state_dir = "{settings.state_dir}"\n[topology]\nenvironment = "{environment}"\n'
        f'[broker]\nhosts = ["{broker.hosts[0]}"]\nmanagement_url = "{broker.management_url}"\n'
    )
    installation = Installation(settings, config, node)
    with installation.admin() as admin:
        version = admin.overview().version
        made = build(topology, broker.vhost, MODELS, broker_version=version)
        apply(made, admin, secrets_dir(settings))
    return installation


@pytest.fixture
def installation(request: pytest.FixtureRequest, node: RunningNode) -> Installation:
    """On the test's node; one for all tests, as it takes seconds to make."""
    name = "installation43" if node.version.startswith("4.3.") else "system_installation"
    made: Installation = request.getfixturevalue(name)
    return made


@pytest.fixture
async def office(installation: Installation) -> AsyncIterator[Office]:
    """With every queue of the installation empty."""
    node, settings = installation.node, installation.settings
    connection = await connect(_as_admin(node, settings))
    channel = await connection.channel()
    await channel.confirm_select()
    with installation.admin() as admin:
        for queue in admin.queues(settings.broker.vhost):
            await channel.purge_queue(queue.name)
    yield Office(connection, channel)
    await connection.close()


def _as_admin(node: RunningNode, settings: Settings) -> Any:
    import msgspec  # noqa: PLC0415

    broker = msgspec.structs.replace(settings.broker, username=node.admin_username, password=node.admin_password)
    return connection_options(msgspec.structs.replace(settings, broker=broker), node.admin_username, "test")
