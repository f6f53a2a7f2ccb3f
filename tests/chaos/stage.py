"""Everything that runs: broker, services, links between them, and callers; set up by `start`, gone after `stop`."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path

import msgspec

from modelmq.broker.processes import with_variable
from modelmq.broker.secrets import read_secret, secret_file
from modelmq.settings import BrokerSettings, GatewaySettings, Settings, TopologySettings, WorkerSettings
from modelmq.supervisor.environment import service_environ
from modelmq.topology_names import user_name
from tests.chaos import models
from tests.chaos.broker import PRODUCER, REPLY_PREFIX, Broker
from tests.chaos.callers.caller import Plan, Standing
from tests.chaos.places import OneNode, ThreeNodes
from tests.chaos.proxy import Link
from tests.chaos.services import Service
from tests.chaos.watch import RUN_VARIABLE

_CALLER_END_S = 60.0


class Shape(msgspec.Struct, frozen=True):
    """How much of everything."""

    nodes: int = 1
    """Of RabbitMQ: 1 or 3."""
    gateways: int = 2
    workers: int = 2
    http_callers: int = 1
    http_per_s: float = 400.0
    client_per_s: float = 60.0
    pika_per_s: float = 100.0
    heartbeat_s: float = 1.0
    timeout_s: float = 12.0
    most_in_flight: int = 600
    reply_mode: str = "direct"
    worker_module: str = "modelmq.worker"
    caller_mutation: str = ""
    mix: tuple[tuple[str, str, float], ...] = (
        ("fast", "", 70.0),
        ("gathering", "", 20.0),
        ("slow", "", 4.0),
        ("frail", "", 5.0),
        ("fast", "slow", 0.02),
        ("fast", "raise", 0.3),
        ("fast", "retry", 0.3),
        ("frail", "crash", 0.02),
        ("frail", "memory", 0.02),
        ("frail", "hang", 0.01),
    )


class CallerProcess:
    """One caller, and what it told last."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.standing = Standing(0, 0, 0, 0, 0, 0)
        self.process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None

    async def start(self, environ: dict[str, str], log: Path) -> None:
        with log.open("ab") as sink:
            self.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.chaos.callers"),
                env=environ,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=sink,
            )
        assert self.process.stdin is not None
        self.process.stdin.write(msgspec.json.encode(self.plan) + b"\n")
        self._reading = asyncio.create_task(self._read())

    def tell(self, word: str) -> None:
        assert self.process is not None
        assert self.process.stdin is not None
        self.process.stdin.write(word.encode() + b"\n")

    async def end(self) -> int:
        """Close its input, and wait; the exit status."""
        assert self.process is not None
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            status = await asyncio.wait_for(self.process.wait(), _CALLER_END_S)
        except TimeoutError:
            self.process.kill()
            status = await self.process.wait()
        if self._reading is not None:
            await self._reading
        return status

    async def _read(self) -> None:
        assert self.process is not None
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            self.standing = msgspec.json.decode(line, type=Standing)


class Stage:
    """One run's. Links: `worker`, `gateway-0`…, `client`, `pika` to the broker; `http-0`… to the gateways."""

    def __init__(self, folder: Path, shape: Shape, seed: int) -> None:
        self.folder = folder
        self.shape = shape
        self.seed = seed
        self.links: dict[str, Link] = {}
        self.services: dict[str, Service] = {}
        self.callers: list[CallerProcess] = []
        self.broker = Broker(ThreeNodes(folder) if shape.nodes > 1 else OneNode(folder), self._settings())

    async def start(self) -> None:
        """Everything but the callers; returns when it can be asked."""
        models.write(self.folder / "models", dict.fromkeys(model for model, *_ in self.shape.mix))
        (self.folder / "log").mkdir()
        (self.folder / "ledger").mkdir()
        await self.broker.start()
        for name in self._names_to_broker():
            await self._link(name, *self.broker.place.targets)
        await asyncio.gather(*(self._start_gateway(number) for number in range(self.shape.gateways)))
        await asyncio.gather(*(self._start_worker(number) for number in range(self.shape.workers)))

    async def start_callers(self) -> None:
        """The load begins."""
        plans = [self._plan(number, "http", self.shape.http_per_s) for number in range(self.shape.http_callers)]
        if self.shape.client_per_s:
            plans.append(self._plan(len(plans), "client", self.shape.client_per_s))
        if self.shape.pika_per_s:
            plans.append(self._plan(len(plans), "pika", self.shape.pika_per_s))
            await self.broker.make_reply_queue(plans[-1].reply_queue)
        for plan in plans:
            caller = CallerProcess(plan)
            self.callers.append(caller)
            await caller.start({**os.environ}, self.folder / "log" / f"caller-{plan.number}.log")

    def standing(self) -> Standing:
        """All callers' together."""
        total: Counter[str] = Counter()
        for caller in self.callers:
            total.update(msgspec.structs.asdict(caller.standing))
        return Standing(*(total[name] for name in Standing.__struct_fields__))

    def ended(self) -> Counter[str]:
        """Connections and processes that have ended so far, by name."""
        found = Counter({f"connections of {name}": link.ended for name, link in self.links.items()})
        found.update({f"processes of {name}": len(service.lives) for name, service in self.services.items()})
        return found

    async def stop_services(self) -> dict[str, int]:
        """In order, under no load; exit statuses by name."""
        statuses = {}
        for name, service in self.services.items():
            statuses[name] = await service.stop()
        return statuses

    async def stop(self) -> tuple[str, ...]:
        """Everything, also after an error; the command lines of what did not end by itself and was killed."""
        for caller in self.callers:
            if caller.process is not None and caller.process.returncode is None:
                caller.process.kill()  # the run was given up
                await caller.process.wait()
        await self.stop_services()
        for link in self.links.values():
            await link.close()
        await self.broker.stop()
        return self.leftovers()

    def leftovers(self) -> tuple[str, ...]:
        """Processes of this run that are still there; they are killed."""
        found = []
        token = os.environ.get(RUN_VARIABLE, "")
        for process in with_variable(RUN_VARIABLE, token) if token else ():
            if process.pid != os.getpid():
                found.append(_command(process.pid))
                os.kill(process.pid, 9)
        return tuple(found)

    def ledgers(self) -> list[Path]:
        """The callers' files."""
        return [Path(caller.plan.file) for caller in self.callers]

    def _names_to_broker(self) -> list[str]:
        return ["worker", "client", "pika", *(f"gateway-{number}" for number in range(self.shape.gateways))]

    async def _link(self, name: str, *targets: tuple[str, int], listen: bool = True) -> Link:
        link = self.links[name] = Link(name, *targets)
        await link.listen()
        if not listen:
            await link.refuse()
        return link

    def _settings(self) -> Settings:
        shape = self.shape
        return Settings(
            models_dir=str(self.folder / "models"),
            state_dir=str(self.folder / "state"),
            broker=BrokerSettings(vhost="ml-dev", heartbeat_s=shape.heartbeat_s, connect_timeout_s=2.0),
            gateway=GatewaySettings(default_timeout_s=shape.timeout_s, drain_s=15.0),
            worker=WorkerSettings(reply_prefixes=(REPLY_PREFIX,), drain_s=15.0),
            topology=TopologySettings(reply_mode=shape.reply_mode),  # type: ignore[arg-type]
        )

    async def _start_gateway(self, number: int) -> None:
        name = f"gateway-{number}"
        port = _free_port()
        link = await self._link(f"http-{number}", ("127.0.0.1", port), listen=False)
        environ = self._environ("gateway", name, gateway__port=port)
        log = self.folder / "log" / f"{name}.log"
        await self._start_service(
            Service(name, "modelmq.gateway", environ, log, on_up=link.listen, on_down=link.refuse)
        )

    async def _start_worker(self, number: int) -> None:
        name = f"worker-{number}"
        environ = self._environ("worker", "worker", worker__health_port=0)
        await self._start_service(Service(
            name, self.shape.worker_module, environ, self.folder / "log" / f"{name}.log"
        ))  # fmt: skip

    async def _start_service(self, service: Service) -> None:
        self.services[service.name] = service
        await service.start()

    def _environ(self, service: str, link: str, **overrides: object) -> dict[str, str]:
        settings = self.broker.settings
        user = user_name(service, settings.topology.environment, "default" if service == "worker" else "")
        hosts = tuple(f"127.0.0.1:{port}" for port in self.links[link].ports)
        file = str(secret_file(settings.state_dir, user))
        return service_environ(settings, os.environ, user, file, broker__hosts=hosts, log__level="warning", **overrides)

    def _plan(self, number: int, kind: str, per_s: float) -> Plan:
        url, addresses = "", ()
        if kind == "http":
            links = [self.links[f"http-{gateway}"] for gateway in range(self.shape.gateways)]
            addresses = tuple(("127.0.0.1", link.ports[0]) for link in links)
        elif kind == "client":
            user = user_name("client", self.broker.settings.topology.environment)
            password = read_secret("", secret_file(self.broker.settings.state_dir, user)).password
            url = self.broker.url_of(user, password, self.links["client"].ports)
        else:
            secret = self.broker.producer_password
            url = " ".join(self.broker.url_of(PRODUCER, secret, [port]) for port in self.links["pika"].ports)
        return Plan(
            number=number + 1,
            kind=kind,  # type: ignore[arg-type]
            seed=self.seed * 100 + number,
            file=str(self.folder / "ledger" / f"{kind}-{number}.jsonl"),
            per_s=per_s,
            most_in_flight=self.shape.most_in_flight,
            timeout_s=self.shape.timeout_s,
            mix=self.shape.mix,  # type: ignore[arg-type]
            addresses=addresses,
            url=url,
            reply_queue=f"{REPLY_PREFIX}{number}" if kind == "pika" else "",
            reply_mode=self.shape.reply_mode,
            heartbeat_s=max(1, int(self.shape.heartbeat_s)),
            withdrawn=0.0 if kind == "pika" else 0.005,
            mutation=self.shape.caller_mutation,
        )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()[:200]
    except OSError:
        return f"process {pid}"
