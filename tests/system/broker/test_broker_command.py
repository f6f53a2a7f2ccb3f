"""`modelmq broker start | stop` and `modelmq topology apply`, as a person types them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelmq.broker import node
from modelmq.broker.node_config import OWNER_VARIABLE
from modelmq.broker.processes import with_variable

pytestmark = pytest.mark.broker
MODEL = "class Model:\n    def predict(self, batch):\n        return batch\n"


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "state"
    yield path
    node.stop(path / "node")
    assert with_variable(OWNER_VARIABLE, str(path / "node")) == []


def modelmq(*arguments: str, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "modelmq", *arguments]
    environment = {**os.environ, **environ}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_started_found_used_and_stopped(state: Path, tmp_path: Path) -> None:
    there = ("--state-dir", str(state))
    first = modelmq("broker", "start", *there, cwd=tmp_path)
    assert (first.returncode, first.stderr) == (0, "")
    assert "modelmq topology apply" in first.stdout
    second = modelmq("broker", "start", *there, cwd=tmp_path)
    assert second.stdout == first.stdout

    folder = tmp_path / "models" / "echo" / "1"
    folder.mkdir(parents=True)
    (folder / "model.py").write_text(MODEL)
    applied = modelmq("topology", "apply", *there, "--models", str(tmp_path / "models"), cwd=tmp_path)
    assert (applied.returncode, applied.stderr) == (0, "")
    assert "+ queue      ml-model.echo.interactive" in applied.stdout
    assert "+ queue      ml-model.echo.bulk" in applied.stdout
    again = modelmq("topology", "apply", *there, "--models", str(tmp_path / "models"), cwd=tmp_path)
    assert again.stdout == "Nothing to change.\n"
    as_json = modelmq("topology", "apply", *there, "--models", str(tmp_path / "models"), "-o", "json", cwd=tmp_path)
    assert json.loads(as_json.stdout) == {"vhost": "ml-dev", "changes": [], "kept": []}
    secrets = [path.read_text().strip() for path in (state / "secrets").iterdir()]
    assert not [secret for secret in secrets if secret in applied.stdout]

    stopped = modelmq("broker", "stop", *there, cwd=tmp_path)
    assert (stopped.returncode, stopped.stdout) == (0, "Stopped.\n")
    assert with_variable(OWNER_VARIABLE, str(state / "node")) == []
    once_more = modelmq("broker", "stop", *there, cwd=tmp_path)
    assert (once_more.returncode, once_more.stdout) == (0, f"No RabbitMQ runs from {state}.\n")


def test_rabbitmq_is_not_where_it_is_said_to_be(state: Path, tmp_path: Path) -> None:
    ran = modelmq("broker", "start", "--state-dir", str(state), cwd=tmp_path, RABBITMQ_HOME="/nowhere")
    assert ran.returncode == 1
    assert ran.stderr.splitlines() == [
        "modelmq: RABBITMQ_HOME is /nowhere, but there is no /nowhere/sbin/rabbitmq-server: correct or unset it."
    ]


def test_a_topology_without_a_broker(state: Path, tmp_path: Path) -> None:
    folder = tmp_path / "models" / "echo" / "1"
    folder.mkdir(parents=True)
    (folder / "model.py").write_text(MODEL)
    ran = modelmq("topology", "apply", "--state-dir", str(state), "--models", "models", cwd=tmp_path)
    assert ran.returncode != 0
    assert len(ran.stderr.splitlines()) == 1
    assert "There is no administrator" in ran.stderr
