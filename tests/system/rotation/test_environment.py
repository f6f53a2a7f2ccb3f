"""Secrets from the environment stay in a running process: a rolling restart changes them, and loses nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from tests.system.rotation.conftest import load, over_http

pytestmark = pytest.mark.broker


async def test_a_rolling_restart_under_load(installation: Any, spawn: Any, admin: Any) -> None:
    def environment(user: str, password: str) -> dict[str, str]:
        return {"MODELMQ_BROKER_USERNAME": user, "MODELMQ_BROKER_PASSWORD": password}

    def first(service: str) -> dict[str, str]:
        user = installation.user(service)
        return environment(user, (installation.secrets / user).read_text().strip())

    second = {service: installation.second_user(admin, service) for service in ("gateway", "worker-default")}
    old_gateway, old_worker = await asyncio.gather(
        spawn("gateway", **first("gateway")), spawn("worker", **first("worker-default"))
    )
    asked = [old_gateway]  # what stands before the gateways sends new requests to the last of them
    async with (
        httpx.AsyncClient(timeout=60, trust_env=False) as http,
        load(over_http(http, lambda: asked[-1].address)) as going,
    ):
        await spawn("worker", **environment(*second["worker-default"]))
        assert await old_worker.terminate() == 0
        await going.more()
        new_gateway = await spawn("gateway", **environment(*second["gateway"]))
        asked.append(new_gateway)
        assert await old_gateway.terminate() == 0
        await going.more()
        for service in second:
            assert installation.connections(installation.user(service)) == 0
            admin.call("DELETE", f"users/{installation.user(service)}")
