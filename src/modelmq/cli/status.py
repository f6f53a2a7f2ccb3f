"""`modelmq status`: what runs and how it is, from the state folder, the gateway and RabbitMQ's management API.

What cannot be reached is a line of the answer, not an error; the exit status is 1 then. Needs no administrator where
the operator's secret is at hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import httpx
import msgspec
from rich.console import Console
from rich.table import Table

from modelmq.broker import processes
from modelmq.broker.management_values import QueueInfo
from modelmq.cli import as_operator
from modelmq.dead_letters.letter import place_of, queue_of
from modelmq.errors import ModelMQError
from modelmq.protocol import error_message
from modelmq.retry_ladder import QUEUES as RETRY_QUEUES
from modelmq.runtimes import scan
from modelmq.settings import Settings
from modelmq.supervisor import records
from modelmq.supervisor.addresses import http_url
from modelmq.supervisor.state import StateDir
from modelmq.tls import trusting_nobody

_WIDTH = 1000
"""Wider than any line: names are not to be cut, and a terminal folds what is too long for it."""


class ServiceStatus(msgspec.Struct, frozen=True):
    """A service: a process of this machine's supervisor, or a connection to the broker that names itself."""

    name: str
    state: str
    pid: int | None = None
    detail: str = ""


class ModelStatus(msgspec.Struct, frozen=True):
    """A model as the gateway sees it."""

    name: str
    ready: bool
    detail: str = ""


class QueueStatus(msgspec.Struct, frozen=True):
    """A queue's messages that wait and that are being worked on, and who consumes. Counts are up to 5 s old."""

    name: str
    ready: int
    unacked: int
    consumers: int
    state: str = ""


class LettersStatus(msgspec.Struct, frozen=True):
    """The dead letters of one place. `full`: each new one pushes the oldest out."""

    place: str
    letters: int
    limit: int | None
    full: bool


class Status(msgspec.Struct, frozen=True):
    """The whole answer. `problems` is empty when all is well."""

    gateway: ServiceStatus
    broker: ServiceStatus
    services: tuple[ServiceStatus, ...]
    models: tuple[ModelStatus, ...]
    queues: tuple[QueueStatus, ...]
    problems: tuple[str, ...]
    letters: tuple[LettersStatus, ...] = ()


def run(settings: Settings, *, as_json: bool) -> None:
    """Prints it; SystemExit 1 when something is not as it should be."""
    found = look(settings)
    if as_json:
        print(msgspec.json.encode(found).decode())  # noqa: T201 - this is the command's output
    else:
        _print(found, Console(width=_WIDTH))
    if found.problems:
        raise SystemExit(1)


def look(settings: Settings) -> Status:
    """Asks everybody. Raises nothing for what does not answer."""
    problems: list[str] = []
    gateway, models = _gateway(settings, problems)
    broker, infos, connected = _broker(settings, problems)
    queues = tuple(
        QueueStatus(q.name, q.messages_ready, q.messages_unacknowledged, q.consumers, q.state) for q in infos
    )
    letters = tuple(status for queue in infos if (status := letters_in(queue)) is not None)
    problems += [
        f"The queue {queue_of(each.place)} is full ({each.letters} dead letters): each new one pushes the oldest out, "
        f"for good; see modelmq dead list {each.place}."
        for each in letters
        if each.full
    ]
    services = (*_processes(settings, problems), *connected)
    return Status(gateway, broker, services, models, queues, tuple(problems), letters)


def letters_in(queue: QueueInfo) -> LettersStatus | None:
    """What a queue holds of dead letters; None for a queue of another kind. Full is where one more may not fit."""
    place, count = place_of(queue.name), queue.messages_ready
    if place is None:
        return None
    most, most_bytes = queue.limit("max-length"), queue.limit("max-length-bytes")
    size = queue.message_bytes_ready
    full = count > 0 and (
        (most is not None and count >= most) or (most_bytes is not None and size + size / count > most_bytes)
    )
    return LettersStatus(place, count, most, full)


def _processes(settings: Settings, problems: list[str]) -> tuple[ServiceStatus, ...]:
    found = []
    for record in records.read(StateDir(settings.state_dir).run):
        runs, pid = processes.alive(record.process), record.process.pid
        found.append(ServiceStatus(record.name, "running" if runs else "ended", pid, record.address))
        if not runs:
            problems.append(f"The {record.name} (process {pid}) has ended without being told to.")
    return tuple(found)


def _gateway(settings: Settings, problems: list[str]) -> tuple[ServiceStatus, tuple[ModelStatus, ...]]:
    url = http_url(settings)
    models: list[ModelStatus] = []
    try:
        with httpx.Client(
            base_url=url, verify=trusting_nobody(), timeout=as_operator.TIMEOUT_S, trust_env=False
        ) as http:
            ready = http.get("/v2/health/ready")
            for name in _model_names(settings):
                answer = http.get(f"/v2/models/{name}/ready")
                detail = "" if answer.status_code == 200 else error_message(answer.content)
                models.append(ModelStatus(name, answer.status_code == 200, detail))
    except httpx.HTTPError as error:
        problems.append(f"The gateway at {url} does not answer ({type(error).__name__}).")
        return ServiceStatus("gateway", "unreachable", detail=url), ()
    if ready.status_code != 200:
        problems.append(f"The gateway at {url} is not ready: {error_message(ready.content)}")
    problems += [f"The model {model.name} is not ready: {model.detail}" for model in models if not model.ready]
    return ServiceStatus("gateway", "ready" if ready.status_code == 200 else "not ready", detail=url), tuple(models)


def _broker(
    settings: Settings, problems: list[str]
) -> tuple[ServiceStatus, tuple[QueueInfo, ...], tuple[ServiceStatus, ...]]:
    broker = settings.broker
    where = f"{', '.join(broker.hosts)}, virtual host {broker.vhost}, management {broker.management_url}"
    try:
        with as_operator.management(settings) as management:
            version = management.overview().rabbitmq_version
            queues = tuple(sorted(management.queues(broker.vhost), key=lambda queue: queue.name))
            connected = tuple(
                ServiceStatus(each.user_provided_name or each.name, each.state or "opening", detail=each.user)
                for each in sorted(management.connections(broker.vhost), key=lambda connection: connection.user)
            )
    except ModelMQError as error:
        problems.append(error.message)
        return ServiceStatus("rabbitmq", "unreachable", detail=where), (), ()
    return ServiceStatus("rabbitmq", f"running {version}", detail=where), queues, connected


def _model_names(settings: Settings) -> list[str]:
    return list(dict.fromkeys(source.name for source in scan(Path(settings.models_dir)).models))


def _print(found: Status, console: Console) -> None:
    services = (found.gateway, found.broker, *found.services)
    console.print(_table(("SERVICE", "STATE", "PID", ""), [(s.name, s.state, s.pid or "", s.detail) for s in services]))
    if found.models:
        rows = [(m.name, "ready" if m.ready else "not ready", m.detail) for m in found.models]
        console.print(_table(("MODEL", "STATE", ""), rows))
    if found.queues:
        queue_rows = [(q.name, q.ready, q.unacked, q.consumers) for q in found.queues if not _is_idle_rung(q)]
        console.print(_table(("QUEUE", "READY", "UNACKED", "CONSUMERS"), queue_rows))
    held = [(each.place, each.letters, each.limit or "") for each in found.letters if each.letters]
    if held:
        console.print(_table(("DEAD LETTERS", "LETTERS", "LIMIT"), held))
    for problem in found.problems:
        console.print(f"! {problem}", markup=False, highlight=False)


def _is_idle_rung(queue: QueueStatus) -> bool:
    """There is a delay queue for each rung of the ladder: only those that hold something are news."""
    return queue.name.startswith(RETRY_QUEUES) and not queue.ready + queue.unacked


def _table(heads: tuple[str, ...], rows: Sequence[tuple[object, ...]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
    for head in heads:
        table.add_column(head, no_wrap=True, overflow="ignore", justify="right" if head in _NUMBERS else "left")
    for row in rows:
        table.add_row(*map(str, row))
    return table


_NUMBERS = frozenset({"LETTERS", "LIMIT", "READY", "UNACKED", "CONSUMERS", "PID"})
