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
from tests.infra import engine
from tests.infra.engine import Program

PAGE = "docs/pulumi.md"


@pytest.fixture(scope="session")
def programs() -> Path:
    """The folder with the engine's programs."""
    return engine.folder()


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


@pytest.fixture(scope="session")
def admin(node: RunningNode) -> Iterator[Management]:
    """The node's administrator."""
    with Management(node.management_url, node.admin_username, node.admin_password) as management:
        yield management


@pytest.fixture(scope="module")
def vhost(node: RunningNode, admin: Management) -> Iterator[str]:
    """The name of one that is gone afterwards with its users, whatever the tests left."""
    environment = f"p{secrets.token_hex(4)}"
    yield f"ml-{environment}"
    for user in admin.users():
        if user.name.endswith(f".{environment}"):
            admin._send("DELETE", "tidy up", None, "users", user.name)
    with suppress(ProvisionError):
        admin._send("DELETE", "tidy up", None, "vhosts", f"ml-{environment}")


@pytest.fixture(scope="module")
def stack(
    vhost: str, node: RunningNode, programs: Path, home: Path, tmp_path_factory: pytest.TempPathFactory
) -> Program:
    """Set up as the page says, line by line, and not brought up yet."""
    folder = tmp_path_factory.mktemp("stack")
    program = Program.copy(folder / "my-rabbitmq", home, programs)
    first = next(block.text for block in blocks(PAGE) if "pulumi stack init" in block.text)
    lines = [line for line in first.splitlines() if line.startswith("pulumi ") and line != "pulumi up"]
    assert len(lines) == 4
    for line in lines:
        text = line.replace("http://127.0.0.1:15672", node.management_url).replace("modelmq-admin", node.admin_username)
        program.sh(text, says=node.admin_password)
    program.config("broker.hosts", f"127.0.0.1:{node.amqp_port}")
    # Users are shared by all virtual hosts of a broker, and other tests have theirs on this one.
    program.config("topology.environment", vhost.removeprefix("ml-"))
    return program


def pytest_unconfigure(config: pytest.Config) -> None:
    """The run's last line says that the engine was not tested; `tools/checks.sh` and `.ci/run` read it."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter else []
    reasons = [str(each.longrepr[2]).removeprefix("Skipped: ") for each in skipped if isinstance(each.longrepr, tuple)]
    said = next((reason for reason in reasons if reason.startswith(engine.NOT_TESTED)), None)
    if said:
        print(said)  # noqa: T201 - it is for who reads the run
        if report := os.environ.get("ENGINE_REPORT"):
            Path(report).write_text(f"{said}\n")
