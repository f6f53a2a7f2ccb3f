"""Pulumi's real engine on a copy of deploy/pulumi, with its state in a folder, against the private RabbitMQ."""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from modelmq.broker.management import Management
from modelmq.broker.node import RunningNode
from modelmq.errors import ProvisionError
from tests.docs.pages import blocks
from tests.infra.engine import ROOT, Program
from tests.not_tested import not_tested

PAGE = "docs/pulumi.md"


@pytest.fixture(scope="session")
def programs(pytestconfig: pytest.Config) -> Path:
    """The folder with the engine's programs; where there is none the tests are skipped, and the run's end says so."""
    asked = [ROOT / "tools/pulumi/engine.sh", "where"]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        not_tested(pytestconfig, "engine", done.stderr.strip())
    return Path(done.stdout.strip())


@pytest.fixture(scope="session")
def home(programs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pulumi's, with the provider in it where it was built here."""
    home = tmp_path_factory.mktemp("pulumi-home")
    plugin = programs / "pulumi-resource-rabbitmq"
    if plugin.exists():
        words = ["plugin", "install", "resource", "rabbitmq", "3.5.3", "--file", plugin]
        environ = os.environ | {"PULUMI_HOME": str(home)}
        subprocess.run([programs / "pulumi", *words], env=environ, check=True, capture_output=True, timeout=60)
    return home


@pytest.fixture(scope="module")
def broker(system_node: RunningNode) -> RunningNode:
    """The RabbitMQ that the stack of a module is for."""
    return system_node


@pytest.fixture(scope="module")
def admin(broker: RunningNode) -> Iterator[Management]:
    """The broker's administrator."""
    with Management(broker.management_url, broker.admin_username, broker.admin_password) as management:
        yield management


@pytest.fixture(scope="module")
def vhost(admin: Management) -> Iterator[str]:
    """The name of one that is gone afterwards with its users, whatever the tests left."""
    environment = f"p{secrets.token_hex(4)}"
    yield f"ml-{environment}"
    for user in admin.users():
        if user.name.endswith(f".{environment}"):
            admin._send("DELETE", "tidy up", None, "users", user.name)
    with suppress(ProvisionError):
        admin._send("DELETE", "tidy up", None, "vhosts", f"ml-{environment}")


@pytest.fixture(scope="module")
def checkpoints() -> bool:
    """Whether Pulumi writes its state after each step, which takes a while."""
    return False


@pytest.fixture(scope="module")
def stack(
    vhost: str,
    broker: RunningNode,
    programs: Path,
    home: Path,
    checkpoints: bool,
    tmp_path_factory: pytest.TempPathFactory,
) -> Program:
    """Set up as the page says, line by line, and not brought up yet."""
    folder = tmp_path_factory.mktemp("stack")
    program = Program.copy(folder / "my-rabbitmq", home, programs, checkpoints=checkpoints)
    first = next(block.text for block in blocks(PAGE) if "pulumi stack init" in block.text)
    lines = [line for line in first.splitlines() if line.startswith("pulumi ") and line != "pulumi up"]
    assert len(lines) == 4
    for line in lines:
        # People write addresses with a slash at their end.
        text = line.replace("http://127.0.0.1:15672", f"{broker.management_url}/")
        program.sh(text.replace("modelmq-admin", broker.admin_username), says=broker.admin_password)
    program.config("broker.hosts", f"127.0.0.1:{broker.amqp_port}")
    # Users are shared by all virtual hosts of a broker, and other tests have theirs on this one.
    program.config("topology.environment", vhost.removeprefix("ml-"))
    return program
