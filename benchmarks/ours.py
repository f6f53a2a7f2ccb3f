"""Our side: `modelmq up` with its default settings, serving one model as the rival does, and a bare queue beside it.

Makes a `System`; everything is ended when the block ends. Knows nothing of figures.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from benchmarks.clients.drive import Address
from benchmarks.processes import child
from benchmarks.system import System
from modelmq.broker import node
from modelmq.broker.management import Management
from modelmq.broker.management_values import BindingInfo, PermissionInfo
from modelmq.broker.node import RunningNode
from modelmq.messages import MODEL_EXCHANGE
from modelmq.metadata import BatchPolicy
from modelmq.runtimes import scan

MODEL = "digits"
START_S = 180.0
_VHOST, _KEY, _QUEUE = "bench", "echo", "bench-echo"
_THREADS = 1
"""Threads the ONNX runtime uses per model; MLServer gets the same."""


@dataclass(frozen=True, slots=True)
class Running:
    """One `modelmq up` with its default settings."""

    http_url: str
    pid: int
    pids: dict[str, int]
    """Of the services: gateway, worker."""
    node: RunningNode


@contextmanager
def serving(folder: Path, models: Path) -> Iterator[Running]:
    """These models on free ports; RuntimeError, with its last words, when it does not come up."""
    state, log = folder / "state", folder / "modelmq.log"
    command = [sys.executable, "-m", "modelmq", "up", "--port", "0", "--state-dir", str(state), "--models", str(models)]
    with child(command, log, stdin=subprocess.DEVNULL) as process:
        status = _until_up(process, state, log)
        running = node.find(state / "node")
        if running is None:
            raise RuntimeError(f"The private node of {state} is not found.")
        pids = {service["name"].partition("-")[0]: service["pid"] for service in status["services"]}
        yield Running(status["gateway"]["detail"], process.pid, pids, running)


@contextmanager
def up(folder: Path) -> Iterator[System]:
    """ModelMQ with the digits model, and a queue beside it."""
    models = folder / "models"
    _write_model(folder / "demo", models)
    with serving(folder, models) as running:
        yield System(
            http_url=running.http_url,
            model=MODEL,
            model_file=_model_file(models),
            max_batch_size=_max_batch_size(models),
            threads=_THREADS,
            pid=running.pid,
            gateway_pid=running.pids["gateway"],
            worker_pid=running.pids["worker"],
            broker_pid=running.node.pid,
            echo=_echo(running.node),
        )


def _write_model(demo: Path, models: Path) -> None:
    """Of the demo models only the one that is asked: the others' processes would be weighed with it."""
    subprocess.run([sys.executable, "-m", "modelmq.demo", str(demo)], check=True, stdout=subprocess.DEVNULL)
    shutil.copytree(demo / MODEL, models / MODEL)


def _until_up(process: subprocess.Popen[str], state: Path, log: Path) -> dict[str, Any]:
    """What `modelmq status` says once everything serves."""
    deadline = time.monotonic() + START_S
    command = [sys.executable, "-m", "modelmq", "status", "--state-dir", str(state), "-o", "json"]
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        if (state / "supervisor.json").exists():
            asked = subprocess.run(command, capture_output=True, text=True, check=False)
            if asked.returncode == 0:
                return dict(json.loads(asked.stdout))
        time.sleep(0.2)
    last = log.read_text().strip().splitlines()[-3:]
    raise RuntimeError(f"modelmq up did not come up: {' / '.join(last)}")


def _model_file(models: Path) -> Path:
    (source,) = (source for source in scan(models).models if source.name == MODEL)
    return next(source.path.glob("*.onnx")) if source.path.is_dir() else source.path


def _max_batch_size(models: Path) -> int:
    (source,) = (source for source in scan(models).models if source.name == MODEL)
    return source.batch.max_batch_size or BatchPolicy().max_batch_size


def _echo(running: RunningNode) -> Address:
    """An exchange and a quorum queue beside the models' virtual host, for the node's administrator."""
    admin = running.admin_username
    with Management(running.management_url, admin, running.admin_password) as management:
        management.put_vhost(_VHOST, "")
        management.put_permission(_VHOST, PermissionInfo(user=admin, configure=".*", write=".*", read=".*"))
        management.put_exchange(_VHOST, MODEL_EXCHANGE, "direct")
        management.put_queue(_VHOST, _QUEUE, {"x-queue-type": "quorum"})
        management.add_binding(_VHOST, BindingInfo(MODEL_EXCHANGE, _QUEUE, "queue", _KEY))
    login = f"{admin}:{quote(running.admin_password, safe='')}"
    return Address(f"amqp://{login}@127.0.0.1:{running.amqp_port}/{_VHOST}", MODEL_EXCHANGE, _KEY, _QUEUE)
