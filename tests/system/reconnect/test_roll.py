"""Every service is told to end and replaced under load, one after another, again and again: no request fails."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from itertools import count
from typing import Any

import httpx
import pytest

from tests.system.reconnect.conftest import serving
from tests.system.rotation.conftest import MODEL, body_of, load, until

pytestmark = pytest.mark.broker

GRACE = {"MODELMQ_GATEWAY_WORKER_GRACE_S": "60"}
"""Longer than a worker takes to start on a busy machine."""

PROGRAM = """
import asyncio, os, signal, sys
import modelmq

async def main():
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    answered = 0
    async def ask(client):
        nonlocal answered
        while not stop.is_set():
            answer = await client.infer("double", {"x": [float(answered)]})
            answered += len(answer["y"])
            if answered == 50:
                print("asking", flush=True)
    async with modelmq.Client(os.environ["MODELMQ_AMQP_URL"]) as client:
        await asyncio.gather(*(ask(client) for _ in range(8)))
    print("answered", answered)

asyncio.run(main())
"""


class Gateways:
    """Who stands before them: takes turns, and goes on to the next when one does not listen any more."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.addresses: list[str] = []
        self._http = http
        self._turns = count()

    async def ask(self, value: float) -> list[float]:
        for _ in range(10):
            address = self.addresses[next(self._turns) % len(self.addresses)]
            try:
                response = await self._http.post(f"{address}/v2/models/{MODEL}/infer", content=body_of(value))
            except httpx.ConnectError:  # nothing was sent
                continue
            assert response.status_code == 200, f"{response.status_code} {response.text}"
            data: list[float] = response.json()["outputs"][0]["data"]
            return data
        raise AssertionError("No gateway listens.")


async def test_every_service_is_replaced_twice_under_load(installation: Any, spawn: Any, http: Any) -> None:
    gateways = Gateways(http)
    running = {
        "worker": await spawn("worker"),
        "one": await spawn("gateway", **GRACE),
        "two": await spawn("gateway", **GRACE),
    }

    async def replace_gateway(name: str) -> None:
        old = running[name]
        assert await old.terminate() == 0
        gateways.addresses.remove(old.address)
        await start_gateway(name)

    async def start_gateway(name: str) -> None:
        running[name] = await spawn("gateway", **GRACE)
        await serving(http, running[name], MODEL)
        gateways.addresses.append(running[name].address)

    for name in ("one", "two"):
        await serving(http, running[name], MODEL)
        gateways.addresses.append(running[name].address)
    async with load(gateways.ask) as asked:
        for _ in range(2):
            await replace_gateway("one")
            await asked.more()
            assert await running["worker"].terminate() == 0  # the only one
            running["worker"] = await spawn("worker")
            await asked.more()
            await replace_gateway("two")
            second = await spawn("worker")
            assert await running["worker"].terminate() == 0  # the other goes on
            running["worker"] = second
            await asked.more()
            await asyncio.to_thread(client_ends_in_peace, installation.client_url())


def client_ends_in_peace(url: str) -> None:
    """A program with a client: what it asked before it was told to end is answered."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        env={"PATH": os.environ["PATH"], "MODELMQ_AMQP_URL": url},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as program:
        assert program.stdout is not None
        try:
            assert program.stdout.readline() == "asking\n"
            program.send_signal(signal.SIGTERM)
            output, errors = program.communicate(timeout=60)
        finally:
            program.kill()
    assert (program.returncode, errors) == (0, "")
    assert output.startswith("answered ")


async def test_new_connections_at_the_moment_of_the_end_are_answered_or_refused(
    installation: Any, spawn: Any, http: Any
) -> None:
    """Callers without kept-alive connections: none is reset that had reached the gateway."""
    await spawn("worker")
    for _ in range(3):
        gateway = await spawn("gateway", **GRACE)
        await serving(http, gateway, MODEL)
        host, port = gateway.address.removeprefix("http://").split(":")
        answered: list[bytes] = []
        callers = [asyncio.create_task(call_anew(host, int(port), answered)) for _ in range(32)]
        await until(lambda answered=answered: len(answered) > 200)
        assert await gateway.terminate() == 0
        await asyncio.gather(*callers)
        assert set(answered) == {b"HTTP/1.1 200 OK"}


async def call_anew(host: str, port: int, answered: list[bytes]) -> None:
    """One connection after another, until nobody listens."""
    body = body_of(1)
    while True:
        try:
            reader, writer = await asyncio.open_connection(host, port)
        except ConnectionRefusedError:
            return
        head = (
            f"POST /v2/models/{MODEL}/infer HTTP/1.1\r\nHost: x\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        answered.append((await reader.readline()).rstrip())
        writer.close()


async def test_a_gateway_that_leaves_says_so_and_goes_on_for_a_while(installation: Any, spawn: Any, http: Any) -> None:
    """Load balancers look at /health/ready, and hear of what they see there some seconds later."""
    await spawn("worker")
    gateway = await spawn("gateway", MODELMQ_GATEWAY_DRAIN_DELAY_S="3")
    await serving(http, gateway, MODEL)
    infer = f"{gateway.address}/v2/models/{MODEL}/infer"
    stays = await http.post(infer, content=body_of(1))
    assert "connection" not in stays.headers
    gateway.process.send_signal(signal.SIGTERM)
    await until(lambda: gateway.lines("ServiceStopping"))
    async with httpx.AsyncClient(timeout=60, trust_env=False) as fresh:
        assert (await fresh.get(f"{gateway.address}/health/ready")).status_code == 503
        assert (await fresh.get(f"{gateway.address}/v2/health/ready")).status_code == 503
        answer = await fresh.post(infer, content=body_of(4))
    assert (answer.status_code, answer.headers["connection"]) == (200, "close")
    assert await asyncio.to_thread(gateway.process.wait, 60) == 0
    with pytest.raises(httpx.ConnectError):
        await http.post(infer, content=body_of(1))
