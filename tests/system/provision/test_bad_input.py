"""What may go wrong before and while a topology is applied: one clear sentence, and a broker that is never emptier."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from modelmq.broker.management import Management
from modelmq.broker.node import RunningNode
from modelmq.provision.passwords import password_hash

if TYPE_CHECKING:
    from conftest import Cli, Proxy

pytestmark = pytest.mark.broker
COMMANDS = ("plan", "drift", "apply")


def sentence(cli: Cli, command: str, status: int = 1) -> str:
    said = cli(command)
    assert said.status == status
    assert said.out == ""
    (line,) = said.err.splitlines()
    assert line.startswith("modelmq: ")
    return line


@pytest.mark.parametrize("name", ["a/b", "a@b", "a b", "x" * 251, "x" * 256, "é"], ids=str.__len__)
def test_names_that_cannot_be(cli: Cli, proxy: Proxy, name: str) -> None:
    cli.configure(management_url=proxy.url, vhost=name)
    assert "broker.vhost" in sentence(cli, "apply", 2)
    assert "broker.vhost" in sentence(cli, "plan", 1)
    cli.configure(management_url=proxy.url)
    cli.serve("digits")
    (cli.folder / "models" / "digits" / "model.toml").write_text(f'queue = "{name}"\n')
    said = cli("apply")
    assert said.status in (1, 2)
    assert "queue" in said.err
    assert proxy.writes == []


def test_an_address_with_a_slash_behind(cli: Cli, node: RunningNode) -> None:
    cli.configure(management_url=node.management_url + "/")
    assert cli("apply").status == 0
    assert cli("drift").out == "No drift.\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_a_wrong_password_of_the_administrator(cli: Cli, proxy: Proxy, command: str) -> None:
    cli.configure(management_url=proxy.url)
    (cli.folder / "admin-password").write_text("wrong\n")
    assert "or its password is wrong; see broker.admin_username and broker.admin_password_file" in sentence(
        cli, command
    )
    assert proxy.writes == []


@pytest.mark.parametrize("tags", ["", "management", "policymaker", "monitoring"])
def test_a_user_who_is_no_administrator(cli: Cli, admin: Management, proxy: Proxy, tags: str) -> None:
    name = f"nobody.{cli.settings.topology.environment}"
    admin.put_user(name, password_hash("nobody", b"salt"), (tags,) if tags else ())
    (cli.folder / "admin-password").write_text("nobody\n")
    cli.configure(management_url=proxy.url, admin_username=name)
    for command in COMMANDS:
        assert f'the user "{name}" lacks the tag "administrator"' in sentence(cli, command)
    assert proxy.writes == []


def test_a_management_api_that_is_not_there(cli: Cli) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        cli.configure(management_url=f"http://127.0.0.1:{taken.getsockname()[1]}")
        for command in COMMANDS:
            assert "cannot be reached; is RabbitMQ running with its management plugin" in sentence(cli, command)


@contextmanager
def answering(answer: bytes) -> Iterator[str]:
    """A server that gives everybody this and closes the connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)
        ended = threading.Event()

        def serve() -> None:
            while not ended.is_set():
                try:
                    connection, _ = server.accept()
                except TimeoutError:
                    continue
                with connection:
                    connection.settimeout(5)
                    connection.recv(65536)
                    connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}"
        finally:
            ended.set()
            thread.join()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n[{",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[{",
        b'HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{"a":"b"}',
        b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
    ],
)
def test_a_management_api_that_answers_by_halves(cli: Cli, answer: bytes) -> None:
    with answering(answer) as url:
        cli.configure(management_url=url)
        for command in COMMANDS:
            assert url in sentence(cli, command)


@pytest.mark.parametrize("asked", range(11))
def test_one_that_stops_answering_while_it_is_looked_at(cli: Cli, proxy: Proxy, asked: int) -> None:
    assert cli("apply").status == 0
    cli.serve("fraud")
    cli.configure(management_url=proxy.url)
    proxy.reads = asked
    said = cli("apply", "--yes")
    assert said.status == 1
    assert len(said.err.splitlines()) == 1
    assert proxy.writes == []


def test_a_queue_of_the_same_name_with_other_arguments(cli: Cli, admin: Management, proxy: Proxy) -> None:
    vhost = cli.settings.broker.vhost
    assert cli("apply").status == 0
    admin.delete_queue(vhost, "ml-model.digits.bulk")
    admin.put_queue(vhost, "ml-model.digits.bulk", {"x-queue-type": "quorum", "x-max-length": 5})
    cli.configure(management_url=proxy.url)
    assert "(x-max-length 5 -> unset), which cannot be changed in place" in sentence(cli, "apply")
    assert proxy.writes == []


def test_a_virtual_host_that_somebody_else_owns(cli: Cli, admin: Management, proxy: Proxy) -> None:
    vhost = cli.settings.broker.vhost
    admin.put_vhost(vhost, "theirs")
    admin.put_queue(vhost, "theirs", {})
    cli.configure(management_url=proxy.url)
    for command in COMMANDS:
        said = cli(command)
        assert said.status == 1
        assert f'The virtual host "{vhost}" belongs to somebody else (its description is "theirs")' in said.err
    assert proxy.writes == []
    assert cli("apply", "--adopt").status == 0
    assert cli("drift").out == "No drift.\n"
    assert "theirs" in {queue.name for queue in admin.queues(vhost)}


def started(cli: Cli, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "modelmq", "topology", *arguments, "--config", str(cli.folder / "modelmq.toml")]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MODELMQ_")}
    return subprocess.Popen(command, env=kept, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_two_applies_at_once(cli: Cli) -> None:
    both = [started(cli, "apply") for _ in range(2)]
    for process in both:
        _, err = process.communicate(timeout=120)
        assert (process.returncode, err) == (0, "")
    assert cli("drift").out == "No drift.\n"
    assert cli("plan").out == "Nothing to change.\n"


@pytest.mark.parametrize("writes", [1, 8, 30])
def test_an_apply_that_is_killed_is_finished_by_the_next(cli: Cli, proxy: Proxy, writes: int) -> None:
    cli.serve(*(f"model{number}" for number in range(10)))
    cli.configure(management_url=proxy.url)
    process = started(cli, "apply")
    deadline = time.monotonic() + 60
    while len(proxy.writes) < writes:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    # Another topology by now: what the killed one made is known to be ours, and goes.
    cli.serve("model0", "other")
    assert cli("apply", "--yes").status == 0
    assert cli("drift").out == "No drift.\n"
    names = {queue.name for queue in _queues(cli)}
    assert not {name for name in names if "model7" in name}


def _queues(cli: Cli):
    broker = cli.settings.broker
    password = Path(cli.folder / "admin-password").read_text().strip()
    with Management(broker.management_url, broker.admin_username, password) as management:
        return management.queues(broker.vhost)
