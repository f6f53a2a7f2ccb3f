"""What others on the machine can see and reach of a private node: nothing."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path

import psutil
import pytest

from modelmq.broker.management import Management
from modelmq.broker.node import RunningNode
from modelmq.broker.node_config import OWNER_VARIABLE, files_in
from modelmq.broker.processes import with_variable
from tests.authority import Authority
from tests.nodes import evaluate, started

pytestmark = pytest.mark.broker
LOOPBACK = {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


def processes(node: RunningNode) -> list[psutil.Process]:
    return [psutil.Process(each.pid) for each in with_variable(OWNER_VARIABLE, str(node.directory))]


def hidden(node: RunningNode) -> dict[str, bytes]:
    files = files_in(node.directory)
    return {
        "password": node.admin_password.encode(),
        "cookie": files.cookie.read_bytes(),
        "key": files.key.read_bytes().splitlines()[1],
    }


def sockets(node: RunningNode, kind: str) -> set[tuple[str, str, int]]:
    """Process, address and port of those that wait for somebody: TCP listeners, UDP sockets without a peer."""
    return {
        (process.name(), connection.laddr.ip, connection.laddr.port)
        for process in processes(node)
        for connection in process.net_connections(kind)
        if connection.status == psutil.CONN_LISTEN or (kind == "udp" and connection.laddr and not connection.raddr)
    }


def test_every_listener_is_on_the_loopback_address(node: RunningNode) -> None:
    found = sockets(node, "tcp")
    assert {ip for _, ip, _ in found} <= LOOPBACK
    ports = {port for _, _, port in found}
    urls = (node.management_url, node.secure_management_url)
    assert {node.amqp_port, node.amqps_port, *(int(url.rpartition(":")[2]) for url in urls)} < ports
    # Beside these the node listens for other Erlang machines, and its epmd for the node.
    assert len(ports) == 6
    assert len({port for name, _, port in found if name == "epmd"}) == 1


def test_it_takes_no_datagrams(authority: Authority, tmp_path: Path) -> None:
    # Erlang opens one for the moment in which it asks for the machine's interfaces, again and again while others ask
    # the node for its state; none is there to stay. So by a node that nobody asks.
    with started(tmp_path / "node", authority) as node:
        stays = sockets(node, "udp")
        deadline = time.monotonic() + 20
        while stays and time.monotonic() < deadline:
            time.sleep(0.05)
            stays &= sockets(node, "udp")
        # The library for the system's log is there at some boots and not at others.
        protocol = evaluate(node.directory, "application:get_env(syslog, protocol).")
    assert stays == set()
    assert protocol == "{ok,{rfc5424,standard_error}}"


def test_its_epmd_is_its_own(node: RunningNode) -> None:
    names = sorted(process.name() for process in processes(node))
    assert names.count("epmd") == 1
    assert names.count("beam.smp") == 1
    ports = {c.laddr.port for p in processes(node) if p.name() == "epmd" for c in p.net_connections("inet")}
    assert 4369 not in ports


def test_only_its_owner_can_read_its_folder(node: RunningNode) -> None:
    assert stat.S_IMODE(node.directory.stat().st_mode) == 0o700
    for path in node.directory.rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode & 0o077 == 0, f"{path} has mode {mode:o}"
        assert path.stat().st_uid == os.geteuid()


def test_its_administrator_is_its_only_user_at_first(node: RunningNode) -> None:
    with Management(node.management_url, node.admin_username, node.admin_password) as management:
        users = {user.name: user.tag_set for user in management.users()}
    assert "guest" not in users
    assert users[node.admin_username] == {"administrator"}
    assert [name for name, tags in users.items() if "administrator" in tags] == [node.admin_username]


def test_no_secret_is_on_a_command_line_in_an_environment_or_a_log(node: RunningNode) -> None:
    shown = {"the log": node.log_file.read_bytes()}
    for path in files_in(node.directory).logs.iterdir():
        shown[str(path)] = path.read_bytes()
    for process in processes(node):
        for what in ("cmdline", "environ"):
            shown[f"{what} of {process.name()}"] = Path(f"/proc/{process.pid}/{what}").read_bytes()
    assert len(shown) > 6
    for what, secret in hidden(node).items():
        assert len(secret) >= 24
        assert [where for where, content in shown.items() if secret in content] == [], what


def test_its_environment_holds_nothing_of_ours(node: RunningNode) -> None:
    ours = set(os.environ) - {"PATH", "HOME", "LANG"}
    for process in processes(node):
        if process.name() in ("beam.smp", "epmd"):
            theirs = set(process.environ())
            assert {name for name in theirs & ours if not name.startswith(("RABBITMQ_", "ERL_", "BINDIR"))} <= {"PWD"}


def test_it_shows_no_password(node: RunningNode) -> None:
    assert node.admin_password not in repr(node)
    assert str(node.directory) in repr(node)
