"""The steps of coming up, each a function of the run that reads what earlier ones left and adds its own.

`up` gives their order. They talk to RabbitMQ's management, the file system and child processes through the modules
that know these; here is only what is done and what is told.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import time
from collections.abc import Awaitable, Coroutine
from typing import Any, TypeVar

import httpx
import msgspec

from modelmq import demo
from modelmq.broker.management import connect
from modelmq.broker.secrets import secret_file
from modelmq.errors import ModelLoadError, ModelMQError
from modelmq.provision import ApplyReport, provision
from modelmq.runtimes import scan
from modelmq.settings import Settings
from modelmq.supervisor import private_node, questions, records
from modelmq.supervisor.environment import service_environ, told_to_others
from modelmq.supervisor.models_ready import await_ready
from modelmq.supervisor.processes import ServiceSpec, child_command
from modelmq.supervisor.progress import Serving
from modelmq.supervisor.routes import routes_of
from modelmq.supervisor.run import Run
from modelmq.tls import trusting_nobody
from modelmq.topology import roles
from modelmq.topology_names import user_name

T = TypeVar("T")

_LEFTOVER_S = 10.0
_GATEWAY_READY_S = 30.0
_STOP_MARGIN_S = 5.0
_BROKER, _MODELS, _TOPOLOGY, _SERVICES = "RabbitMQ", "models", "topology", "services"


async def end_leftovers(run: Run) -> None:
    """Services of a supervisor that was killed may still run, and hold the port."""
    ended = await asyncio.to_thread(records.end_all, run.state.run, _LEFTOVER_S)
    if ended:
        run.progress.note(f"Ended what an earlier run had left: {', '.join(ended)}.")


async def check_port(run: Run) -> None:
    """Before anything is started, because this is what goes wrong most often."""
    gateway = run.settings.gateway
    port = _free_port(gateway.host, gateway.port)
    run.settings = msgspec.structs.replace(run.settings, gateway=msgspec.structs.replace(gateway, port=port))
    run.state.announce(told_to_others(run.settings))


async def read_own_models(run: Run) -> None:
    """Before anything is started, because nobody should wait for a broker to hear of a wrong folder."""
    if run.options.own_models:
        await _read_models(run)


async def start_node_and_write_models(run: Run) -> None:
    """At one time: the broker takes seconds to boot, and so do the demo models the first time."""
    work: list[Coroutine[Any, Any, object]] = [_timed(run, _BROKER, _start_node(run))]
    if not run.options.own_models:
        work.append(_demo_models(run))
    await _all(*work)


async def _demo_models(run: Run) -> None:
    await _timed(run, _MODELS, _write_demo_models(run))
    await _read_models(run)


async def _read_models(run: Run) -> None:
    """What cannot be served is told, the rest is served; nothing at all is an error."""
    run.catalog = await asyncio.to_thread(scan, run.models_dir)
    for problem in run.catalog.problems:
        run.progress.problem(problem)
    if not run.catalog.models:
        why = "" if run.catalog.problems else "; it must hold <model>/<version>/<model file>"
        raise ModelLoadError(f"There is no model to serve in {run.models_dir}{why}.")
    roles(run.settings.topology, routes_of(run.catalog))  # refuses a role with a model that is not there


async def apply_topology(run: Run) -> None:
    """The only step that writes to the broker, with the node's administrator."""

    async def applied() -> str:
        return str(await asyncio.to_thread(_provision, run.settings, run))

    await _timed(run, _TOPOLOGY, applied())


async def start_services(run: Run) -> None:
    """Gateway and workers at one time; neither needs the other to start."""
    specs = [_gateway(run), *_workers(run)]

    async def started() -> str:
        await _all(*(run.tree.start(spec, _ready_timeout_s(run, spec)) for spec in specs))
        return ", ".join(spec.name for spec in specs)

    await _timed(run, _SERVICES, started())


async def await_models(run: Run) -> None:
    """Ready is what a client sees, through the gateway. A model that is not is told, and the others serve on."""
    names = tuple(dict.fromkeys(source.name for source in run.catalog.models))
    async with _http(run) as http:
        ready, problems = await await_ready(http, names)
    run.ready_models = ready
    for problem in problems:
        run.progress.problem(problem)
    if not ready:
        raise ModelLoadError(f"No model in {run.models_dir} can be served; the logs are in {run.state.logs}.")


async def ask_a_question(run: Run) -> None:
    """Proof that the whole path works. One bad answer is no reason to stop what the others may want."""
    async with _http(run) as http:
        for model in _worth_showing(run):
            found = await questions.question(http, run.models_dir, run.state.questions, model)
            if found is not None:
                try:
                    run.asked = await questions.ask(http, found)
                except ModelMQError as error:
                    run.progress.problem(error.message)
                return


async def tell(run: Run) -> None:
    """Everything is up."""
    summary = Serving(
        models=run.ready_models,
        http_url=run.http_url,
        management_url=run.settings.broker.management_url,
        state_dir=str(run.state.path),
        logs_dir=str(run.state.logs),
        started_in_s=time.monotonic() - run.began_at,
        asked=run.asked,
    )
    run.progress.serving(summary)


async def _start_node(run: Run) -> str:
    running = await run.node.start()
    run.settings = private_node.with_node(run.settings, running)
    return f"{running.version}, a private node"


async def _write_demo_models(run: Run) -> str:
    names = ", ".join(demo.MODELS)
    if await asyncio.to_thread(demo.is_current, run.models_dir):
        return names
    process = await asyncio.create_subprocess_exec(
        *child_command("modelmq.demo", str(run.models_dir)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=dict(run.options.environ),
        start_new_session=True,
    )
    try:
        said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        lines = said.decode("utf-8", "replace").strip().splitlines() or ["it said nothing"]
        raise ModelLoadError(f"The demo models could not be written: {lines[-1]}")
    return f"{names}, trained now"


def _provision(settings: Settings, run: Run) -> ApplyReport:
    with connect(settings.broker) as management:
        return provision(settings, routes_of(run.catalog), management)


def _gateway(run: Run) -> ServiceSpec:
    drain_s = run.settings.gateway.drain_delay_s + run.settings.gateway.drain_s
    return _service(run, "gateway", "modelmq.gateway", user_name("gateway", run.settings.topology.environment), drain_s)


def _workers(run: Run) -> list[ServiceSpec]:
    specs = []
    for role, routes in roles(run.settings.topology, routes_of(run.catalog)).items():
        user = user_name("worker", run.settings.topology.environment, role)
        for number in range(1, run.options.workers + 1):
            if routes:
                name = f"worker-{role}-{number}"
                specs.append(_service(run, name, "modelmq.worker", user, run.settings.worker.drain_s, role=role))
    return specs


def _service(run: Run, name: str, module: str, user: str, drain_s: float, role: str = "") -> ServiceSpec:
    password_file = str(secret_file(run.settings.state_dir, user))
    overrides = {"worker__role": role} if role else {}
    if role:  # several workers cannot share a fixed port
        overrides["worker__health_port"] = "0"
    return ServiceSpec(
        name=name,
        module=module,
        environ=service_environ(run.settings, run.options.environ, user, password_file, **overrides),
        log=run.state.logs / f"{name}.log",
        run_dir=run.state.run,
        drain_s=drain_s + _STOP_MARGIN_S,
        # The gateway answers what it has taken while workers still run.
        stage=1 if role else 0,
        role=role,
        address="" if role else run.http_url,
    )


def _ready_timeout_s(run: Run, spec: ServiceSpec) -> float:
    """A worker is ready once each of its models has loaded or failed to."""
    if not spec.role:
        return _GATEWAY_READY_S
    return _GATEWAY_READY_S + run.settings.worker.load_timeout_s * len(run.catalog.models)


def _worth_showing(run: Run) -> list[str]:
    """The demo's first model first; of other folders those that bring a question of their own."""
    ready = run.ready_models
    shown = [model for model in demo.MODELS if model in ready]
    asking = [model for model in ready if demo.sample(run.models_dir, model)]
    return list(dict.fromkeys([*shown, *asking, *ready]))


def _free_port(host: str, port: int) -> int:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            return int(probe.getsockname()[1])
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            sentence = (
                f"Port {port} of {host} is taken by another program: stop that one, or choose another with --port."
            )
        else:
            sentence = f"gateway.host: {host}, port {port}, cannot be listened on: {error.strerror}."
        raise ModelMQError(sentence) from error


def _http(run: Run) -> httpx.AsyncClient:
    # Proxies of the environment are left aside: the gateway is on this machine.
    return httpx.AsyncClient(base_url=run.http_url, verify=trusting_nobody(), trust_env=False)


async def _timed(run: Run, step: str, work: Awaitable[str]) -> None:
    run.progress.began(step)
    began = time.monotonic()
    detail = await work
    run.progress.done(step, detail, time.monotonic() - began)


async def _all(*work: Coroutine[Any, Any, object]) -> None:
    """At one time; the first to fail ends the others, and its error is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            for each in work:
                group.create_task(each)
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from errors
