"""An installation with its own users on a real broker, services as processes, and callers that never pause."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from modelmq.amqp import connect, options_from_url
from modelmq.broker.management import Management
from modelmq.broker.node import RunningNode
from modelmq.broker.secrets import read_secret
from modelmq.errors import AccessRefused, ProvisionError
from modelmq.messages import ReplyMode
from modelmq.provision import provision
from modelmq.settings import BrokerSettings, Settings, TopologySettings
from modelmq.topology_names import ModelRoute
from tests.cluster import ClusterNode
from tests.service_log import lines_of

PATIENCE_S = 60.0
MODEL = "double"
# Its pause keeps requests under way at any moment, without a load that takes all of the machine.
CODE = """
    import time

    class Model:
        inputs = {"x": ("FP64", [-1])}
        outputs = {"y": ("FP64", [-1])}
        def predict(self, batch):
            time.sleep(0.1)
            return {"y": batch["x"] * 2}
"""


async def until(condition: Callable[[], Any], what: str = "it") -> None:
    """For what another process gives no other signal of."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, f"{what} did not come"
        await asyncio.sleep(0.02)


class Child:
    """A service as its own process, with its log."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self.log = log

    def lines(self, event: str = "") -> list[dict[str, Any]]:
        lines = lines_of(self.log)
        return [line for line in lines if event in ("", line["event"])]

    @cached_property
    def address(self) -> str:
        (line,) = self.lines("ServiceStarted")
        return str(line["address"])

    async def drained(self, times: int = 1) -> None:
        """It has finished with so many connections that were handed over from."""
        await until(lambda: len(self.lines("BrokerDrained")) >= times, f"BrokerDrained in {self.log}")

    async def terminate(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return await asyncio.to_thread(self.process.wait, PATIENCE_S)


class Installation:
    """Settings, secrets and models of one environment of a broker, provisioned."""

    def __init__(
        self,
        node: RunningNode | ClusterNode,
        folder: Path,
        *,
        hosts: tuple[str, ...] = (),
        reply_mode: ReplyMode = "direct",
    ) -> None:
        """On a node, or on several that are one broker."""
        self.node = node
        environment = f"t{secrets.token_hex(4)}"
        self.settings = Settings(
            models_dir=str(folder / "models"),
            state_dir=str(folder / "state"),
            broker=BrokerSettings(
                hosts=hosts or (f"127.0.0.1:{node.amqp_port}",),
                vhost=f"ml-{environment}",
                management_url=node.management_url,
                admin_username=node.admin_username,
                admin_password=node.admin_password,
            ),
            topology=TopologySettings(environment=environment, reply_mode=reply_mode),
        )
        self.secrets = folder / "state" / "secrets"
        self.folder = folder
        self.routes: list[ModelRoute] = []
        self.add_model(MODEL, CODE)

    def add_model(self, name: str, code: str, toml: str = "") -> None:
        """Before `provision`. FOLDER in the code is the test's own folder."""
        model = self.folder / "models" / name / "1"
        model.mkdir(parents=True)
        (model / "model.py").write_text(textwrap.dedent(code).replace("FOLDER", str(self.folder)))
        (model.parent / "model.toml").write_text(toml)
        self.routes.append(ModelRoute(name, ("1",)))

    def user(self, service: str) -> str:
        return f"ml-{service}.{self.settings.topology.environment}"

    @property
    def management(self) -> Management:
        broker = self.settings.broker
        return Management(broker.management_url, broker.admin_username, broker.admin_password)

    def provision(self) -> None:
        with self.management as management:
            provision(self.settings, self.routes, management)

    def url(self, login: str = "") -> str:
        return f"amqp://{login}@{','.join(self.settings.broker.hosts)}/{self.settings.broker.vhost}"

    def client_url(self) -> str:
        """Of the plain client, which may ask and nothing else."""
        secret = read_secret("", self.secrets / self.user("client"))
        return self.url(f"{secret.username or self.user('client')}:{secret.password}")

    async def may_log_in(self, user: str, password: str) -> bool:
        try:
            await (await connect(options_from_url(self.url(f"{user}:{password}")))).close()
        except AccessRefused:
            return False
        return True

    def second_user(self, admin: Any, service: str) -> tuple[str, str]:
        """One with the same rights as the service's user, as an operator would make it; its name and password."""
        name, password, vhost = f"{self.user(service)}~2", secrets.token_hex(8), self.settings.broker.vhost
        with self.management as management:
            rights = next(each for each in management.permissions(vhost) if each.user == self.user(service))
        admin.call("PUT", f"users/{name}", {"password": password, "tags": ""})
        fields = {"configure": rights.configure, "write": rights.write, "read": rights.read}
        admin.call("PUT", f"permissions/{vhost}/{name}", fields)
        return name, password

    def connections(self, user: str) -> int:
        with self.management as management:
            return len(management.connections_of(user))


@pytest.fixture
def admin(_admin: Any) -> Any:
    """The node's administrator."""
    return _admin


@pytest.fixture
def installation(node: RunningNode, admin: Any, tmp_path: Path) -> Iterator[Installation]:
    made = Installation(node, tmp_path)
    made.provision()
    yield made
    with made.management as management:
        users = [user.name for user in management.users() if made.settings.topology.environment in user.name]
    admin.call("DELETE", f"vhosts/{made.settings.broker.vhost}")
    for user in users:
        admin.call("DELETE", f"users/{user}")


@pytest.fixture
def spawn(installation: Installation, tmp_path: Path) -> Iterator[Callable[..., Awaitable[Child]]]:
    """`modelmq.gateway` or `modelmq.worker` with the secret of its file, or of the environment, once it is ready."""
    children: list[Child] = []

    async def spawner(service: str, **environ: str) -> Child:
        reading, writing = os.pipe()
        settings = installation.settings
        user = installation.user("gateway" if service == "gateway" else "worker-default")
        ours = {
            "MODELMQ_MODELS_DIR": settings.models_dir,
            "MODELMQ_STATE_DIR": settings.state_dir,
            "MODELMQ_BROKER_HOSTS": ",".join(settings.broker.hosts),
            "MODELMQ_TOPOLOGY_ENVIRONMENT": settings.topology.environment,
            "MODELMQ_TOPOLOGY_REPLY_MODE": settings.topology.reply_mode,
            "MODELMQ_GATEWAY_PORT": "0",
            "MODELMQ_READY_FD": str(writing),
        }
        if "MODELMQ_BROKER_PASSWORD" not in environ:
            ours["MODELMQ_BROKER_PASSWORD_FILE"] = str(installation.secrets / user)
        log = tmp_path / f"{service}-{secrets.token_hex(3)}.log"
        with log.open("wb") as stream:
            process = subprocess.Popen(  # noqa: ASYNC220 - the tests end it by its number, also without a loop
                [sys.executable, "-m", f"modelmq.{service}"],
                env={**os.environ, **ours, **environ},
                pass_fds=(writing,),
                stderr=stream,
            )
        child = Child(process, log)
        children.append(child)
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            line = await asyncio.wait_for(asyncio.to_thread(pipe.readline), PATIENCE_S)
        assert line == b"ready\n", log.read_text()
        return child

    yield spawner
    for child in children:
        child.process.kill()
        child.process.wait(timeout=10)


class Load:
    """Callers that ask one after another, and what they were told."""

    def __init__(self) -> None:
        self.answers: Counter[str] = Counter()
        self.stopping = asyncio.Event()
        self._news = asyncio.Event()

    @property
    def failed(self) -> dict[str, int]:
        return {what: count for what, count in self.answers.items() if what != "ok"}

    async def more(self, count: int = 80) -> None:
        """Wait for so many further good answers."""
        wanted = self.answers["ok"] + count
        async with asyncio.timeout(PATIENCE_S):
            while self.answers["ok"] < wanted and not self.failed:
                self._news.clear()
                await self._news.wait()

    async def caller(self, ask: Callable[[float], Awaitable[list[float]]], start: int) -> None:
        value = float(start)
        while not self.stopping.is_set() and not self.failed:
            value += 1
            try:
                told = "ok" if await ask(value) == [value * 2] else "wrong"
            except Exception as error:
                told = repr(error)
            self.answers[told] += 1
            self._news.set()


@asynccontextmanager
async def load(ask: Callable[[float], Awaitable[list[float]]], callers: int = 8) -> Any:
    """Under load within the block; at its end everything asked was answered, and nothing failed."""
    made = Load()
    tasks = [asyncio.create_task(made.caller(ask, number * 1_000_000)) for number in range(callers)]
    try:
        await made.more()
        yield made
        await made.more()
    finally:
        made.stopping.set()
        _, late = await asyncio.wait(tasks, timeout=PATIENCE_S)
        for task in late:
            task.cancel()
    assert (made.failed, late) == ({}, set())


def body_of(value: float) -> bytes:
    tensor = {"name": "x", "datatype": "FP64", "shape": [1], "data": [value]}
    return msgspec.json.encode({"inputs": [tensor]})


def over_http(http: Any, base: Callable[[], str]) -> Callable[[float], Awaitable[list[float]]]:
    async def post(value: float) -> Any:
        address = base()
        try:
            return await http.post(f"{address}/v2/models/{MODEL}/infer", content=body_of(value))
        except httpx.ConnectError:
            # Nothing was sent. Whoever stands before gateways goes to the next one when one has ceased to listen.
            if base() == address:
                raise
            return await http.post(f"{base()}/v2/models/{MODEL}/infer", content=body_of(value))

    async def ask(value: float) -> list[float]:
        response = await post(value)
        assert response.status_code == 200, f"{response.status_code} {response.text}"
        data: list[float] = response.json()["outputs"][0]["data"]
        return data

    return ask


def over_amqp(client: Any) -> Callable[[float], Awaitable[list[float]]]:
    async def ask(value: float) -> list[float]:
        answer = await client.infer(MODEL, {"x": [value]})
        return [float(each) for each in answer["y"]]

    return ask


def replace_file(path: Path, text: str) -> None:
    """As Kubernetes and careful people do it: whole or not at all."""
    draft = path.with_name(f".{path.name}.draft")
    draft.touch(0o600)
    draft.write_text(text)
    draft.replace(path)


def without_user(admin: Any, user: str) -> None:
    with suppress(ProvisionError):
        admin.call("DELETE", f"users/{user}")
