"""`modelmq topology rotate` as a user runs it: under load, interrupted, too early, and against services that stay."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest

import modelmq
from modelmq.amqp import Connection, connect, options_from_url
from modelmq.broker.secrets import parse
from modelmq.provision.accounts import with_generations
from modelmq.provision.look import look
from modelmq.provision.plan import plan
from modelmq.provision.secret_files import known_secrets
from modelmq.topology import build
from tests.system.rotation.conftest import load, over_amqp, over_http, until

pytestmark = pytest.mark.broker


@pytest.fixture
async def stay(installation: Any) -> AsyncIterator[Callable[[str], Awaitable[Connection]]]:
    """A connection as the gateway's user, which knows nothing of files."""
    made: list[Connection] = []

    async def stayer(name: str = "") -> Connection:
        login = ":".join(secret(installation, "gateway"))
        made.append(await connect(options_from_url(installation.url(login), name=name)))
        return made[-1]

    yield stayer
    for connection in made:
        await connection.close()


class Command:
    """The command as its own process."""

    def __init__(self, installation: Any, *arguments: str) -> None:
        broker, topology = installation.settings.broker, installation.settings.topology
        password = installation.secrets.parent / "admin"
        password.touch(0o600)
        password.write_text(broker.admin_password)
        ours = {
            "MODELMQ_STATE_DIR": installation.settings.state_dir,
            "MODELMQ_BROKER_MANAGEMENT_URL": broker.management_url,
            "MODELMQ_BROKER_ADMIN_USERNAME": broker.admin_username,
            "MODELMQ_BROKER_ADMIN_PASSWORD_FILE": str(password),
            "MODELMQ_TOPOLOGY_ENVIRONMENT": topology.environment,
        }
        command = [sys.executable, "-m", "modelmq", "topology", "rotate", *arguments]
        self.process = subprocess.Popen(
            command, env={**os.environ, **ours}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    async def ended(self) -> tuple[int, str, str]:
        said, complained = await asyncio.to_thread(self.process.communicate, timeout=120)
        return self.process.returncode, said, complained


def secret(installation: Any, service: str) -> tuple[str, str]:
    """What the service is given."""
    found = parse((installation.secrets / installation.user(service)).read_bytes())
    assert found is not None
    return found.username or installation.user(service), found.password


def names_of(installation: Any) -> list[str]:
    with installation.management as management:
        return [each.user_provided_name for each in management.connections(installation.settings.broker.vhost)]


def nothing_to_change(installation: Any) -> bool:
    settings = installation.settings
    with installation.management as management:
        seen = look(settings.broker.vhost, management)
        topology = build(
            with_generations(settings), settings.broker.vhost, installation.routes, broker_version=seen.version
        )
        made = plan(topology, seen, known_secrets((user.name for user in topology.users), installation.secrets))
        return made.changes == () and made.strays == ()


@pytest.mark.both_brokers
async def test_every_service_under_load(installation: Any, spawn: Any) -> None:
    gateway, _ = await asyncio.gather(spawn("gateway"), spawn("worker"))
    before = {service: secret(installation, service) for service in ("gateway", "worker-default", "client")}
    url = installation.url(installation.user("client"))
    client_file = installation.secrets / installation.user("client")
    async with (
        httpx.AsyncClient(timeout=60, trust_env=False) as http,
        modelmq.Client(url, password_file=client_file) as client,
        load(over_http(http, lambda: gateway.address)),
        load(over_amqp(client), callers=4),
    ):
        for service in ("gateway", "worker", "client"):
            status, said, complained = await Command(installation, service).ended()
            assert (status, complained) == (0, ""), said
            assert f"The secret of {'worker_default' if service == 'worker' else service} is rotated." in said
    for service, (user, password) in before.items():
        now = secret(installation, service)
        assert now[0] == f"{user}~2"
        assert await installation.may_log_in(*now)
        assert not await installation.may_log_in(user, password)
        assert password not in said
    assert sorted(path.name for path in installation.secrets.iterdir() if "~" in path.name) == []
    assert nothing_to_change(installation)


async def test_the_third_follows_the_second(installation: Any) -> None:
    for number in (2, 3):
        assert (await Command(installation, "operator").ended())[0] == 0
        assert secret(installation, "operator")[0] == f"{installation.user('operator')}~{number}"
    with installation.management as management:
        users = [user.name for user in management.users() if user.name.startswith(installation.user("operator"))]
    assert users == [f"{installation.user('operator')}~3"]


@pytest.mark.both_brokers
async def test_a_service_that_does_not_switch_is_named_and_kept(installation: Any, stay: Any) -> None:
    user, password = secret(installation, "gateway")
    stays = await stay("the-old-one")
    await until(lambda: "the-old-one" in names_of(installation))
    status, said, complained = await Command(installation, "gateway", "--timeout", "1").ended()
    assert status == 1
    assert f"waiting for {user}: the-old-one (127.0.0.1:" in said
    assert f"After 1 s {user} still has 1 connection: the-old-one (127.0.0.1:" in complained
    assert "then run modelmq topology rotate gateway again." in complained
    assert len(complained.strip().splitlines()) == 1
    assert not stays.closed.done()
    assert await installation.may_log_in(user, password)
    assert await installation.may_log_in(*secret(installation, "gateway"))
    assert nothing_to_change(installation)
    rotating = Command(installation, "gateway")
    await stays.close()
    status, said, complained = await rotating.ended()
    assert (status, complained) == (0, ""), said
    assert not await installation.may_log_in(user, password)
    assert secret(installation, "gateway")[0] == f"{user}~2"  # the one that was begun, and no other


async def test_interrupted_it_is_finished_by_the_next(installation: Any, stay: Any) -> None:
    user, password = secret(installation, "gateway")
    stays = await stay()
    first = Command(installation, "gateway")
    await until(lambda: secret(installation, "gateway")[0] != user)
    first.process.send_signal(signal.SIGKILL)
    await first.ended()
    await stays.close()
    status, said, complained = await Command(installation, "gateway").ended()
    assert (status, complained) == (0, ""), said
    assert not await installation.may_log_in(user, password)
    assert secret(installation, "gateway")[0] == f"{user}~2"
    assert nothing_to_change(installation)


@pytest.mark.parametrize("left", ["next", "old"])
async def test_whatever_files_an_interrupted_one_left_it_goes_on(installation: Any, left: str) -> None:
    path = installation.secrets / installation.user("gateway")
    user = path.name
    for ending, text in {"next": f"{user}~2\nsecond\n", "old": path.read_text()}.items():
        if ending == "next" or left == "old":
            (installation.secrets / f"{user}~{ending}").touch(0o600)
            (installation.secrets / f"{user}~{ending}").write_text(text)
    status, said, complained = await Command(installation, "gateway").ended()
    assert (status, complained) == (0, ""), said
    assert secret(installation, "gateway") == (f"{user}~2", "second")
    assert nothing_to_change(installation)


async def test_two_at_once_do_not_meet(installation: Any, stay: Any) -> None:
    user, _ = secret(installation, "gateway")
    stays = await stay()
    first = Command(installation, "gateway")
    await until(lambda: secret(installation, "gateway")[0] != user)
    status, _, complained = await Command(installation, "client").ended()
    assert status == 1
    assert "are being rotated already; wait for that." in complained
    await stays.close()
    assert (await first.ended())[0] == 0


async def test_before_the_first_apply_it_says_so(installation: Any, admin: Any) -> None:
    admin.call("DELETE", f"users/{installation.user('gateway')}")
    status, _, complained = await Command(installation, "gateway").ended()
    assert status == 1
    assert "is not on the broker" in complained
    assert "run modelmq topology apply first" in complained
    assert secret(installation, "gateway")[0] == installation.user("gateway")


async def test_an_apply_in_the_middle_keeps_both_users(installation: Any, stay: Any) -> None:
    stays = await stay()
    assert (await Command(installation, "gateway", "--timeout", "0.5").ended())[0] == 1
    installation.provision()
    assert not stays.closed.done()
    await stays.close()
    assert (await Command(installation, "gateway").ended())[0] == 0
    installation.provision()
    assert nothing_to_change(installation)
