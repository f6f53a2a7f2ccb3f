"""`modelmq topology render` makes a file that a real RabbitMQ imports, and that is then the topology."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import msgspec
import pytest

from modelmq.broker.management import Management
from modelmq.broker.node import RunningNode
from modelmq.broker.secrets import read_secret, secret_file

if TYPE_CHECKING:
    from conftest import Cli

pytestmark = pytest.mark.broker


@pytest.mark.both_brokers
def test_what_is_imported_is_the_topology(cli: Cli, admin: Management, node: RunningNode) -> None:
    file = cli.folder / "definitions.json"
    said = cli("render", "--format", "definitions", "--out", str(file), "--for", node.version)
    assert (said.status, said.err) == (0, "")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    client = f"ml-client.{cli.settings.topology.environment}"
    assert read_secret("", secret_file(cli.settings.state_dir, client)).password not in file.read_text()
    admin._send("POST", "import", msgspec.Raw(file.read_bytes()), "definitions")
    assert cli("drift").out == "No drift.\n"
    assert (cli("apply").status, cli("plan").out) == (0, "Nothing to change.\n")
    assert cli("destroy", "--yes").status == 0


def test_a_version_that_is_none(cli: Cli) -> None:
    said = cli("render", "--out", str(cli.folder / "x"), "--for", "newest")
    assert said.status == 2
    assert '--for takes a version of RabbitMQ such as 3.10 or 4.3, not "newest".' in said.err
    assert not (cli.folder / "x").exists()
