"""A secret in a file is replaced while everything is under load: nobody is refused, and the old user is free to go."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

import modelmq
from tests.system.rotation.conftest import load, over_amqp, over_http, replace_file, until

pytestmark = pytest.mark.broker


@pytest.mark.both_brokers
async def test_gateway_and_worker_under_http_load(installation: Any, spawn: Any, admin: Any) -> None:
    gateway, worker = await asyncio.gather(spawn("gateway", MODELMQ_GATEWAY_CONNECTIONS="2"), spawn("worker"))
    services = {"gateway": gateway, "worker-default": worker}
    seconds = {service: installation.second_user(admin, service) for service in services}
    async with httpx.AsyncClient(timeout=60, trust_env=False) as http, load(over_http(http, lambda: gateway.address)):
        for service, child in services.items():
            user, password = seconds[service]
            replace_file(installation.secrets / installation.user(service), f"{user}\n{password}\n")
            await child.drained(2 if service == "gateway" else 1)
            assert {line["user"] for line in child.lines("BrokerHandedOver")} == {user}
            old = installation.user(service)
            # A broker answers that a connection is closed before its list says so.
            await until(lambda old=old: installation.connections(old) == 0)
            admin.call("DELETE", f"users/{old}")
    for child in services.values():
        assert child.lines("BrokerDisconnected") == []


async def test_the_worker_alone_and_back_again_with_a_plain_client(installation: Any, spawn: Any, admin: Any) -> None:
    worker = await spawn("worker")
    client_file = installation.secrets / installation.user("client")
    path = installation.secrets / installation.user("worker-default")
    first = path.read_text()
    user, password = installation.second_user(admin, "worker-default")
    url = installation.url(installation.user("client"))
    async with modelmq.Client(url, password_file=client_file) as client, load(over_amqp(client)):
        replace_file(path, f"{user}\n{password}\n")
        await worker.drained(1)
        replace_file(path, first)
        await worker.drained(2)
    users = [line["user"] for line in worker.lines("BrokerHandedOver")]
    assert users == [user, installation.user("worker-default")]


async def test_the_python_client(installation: Any, spawn: Any, admin: Any) -> None:
    await spawn("worker")
    old = installation.user("client")
    path = installation.secrets / old
    user, password = installation.second_user(admin, "client")
    async with (
        modelmq.Client(installation.url(old), password_file=path, connections=2) as client,
        load(over_amqp(client)),
    ):
        replace_file(path, f"{user}\n{password}\n")
        await until(lambda: installation.connections(user) == 2)
        await until(lambda: installation.connections(old) == 0)
        admin.call("DELETE", f"users/{old}")


async def test_a_secret_that_does_not_work_costs_nothing(installation: Any, spawn: Any) -> None:
    gateway, worker = await asyncio.gather(spawn("gateway"), spawn("worker"))
    async with httpx.AsyncClient(timeout=60, trust_env=False) as http, load(over_http(http, lambda: gateway.address)):
        for service, child in {"gateway": gateway, "worker-default": worker}.items():
            replace_file(installation.secrets / installation.user(service), "wrong\n")
            await until(lambda child=child: len(child.lines("BrokerHandOverFailed")) >= 2)
            assert "wrong" not in child.log.read_text()
            assert (
                f'refused the user "{installation.user(service)}"' in child.lines("BrokerHandOverFailed")[0]["reason"]
            )
            assert child.lines("BrokerHandedOver") == []
