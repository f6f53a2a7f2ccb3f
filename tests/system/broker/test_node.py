"""A private node's life: started, found, adopted, killed, stopped without a trace."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pika
import psutil
import pytest

from modelmq.broker import node as nodes
from modelmq.broker import node_record, ports
from modelmq.broker.management import Management
from modelmq.broker.node import NodeSpec, RunningNode, start
from modelmq.broker.node_config import OWNER_VARIABLE, Ports, files_in
from modelmq.broker.processes import identify, with_variable
from modelmq.errors import NodeError
from modelmq.provision.passwords import password_hash

pytestmark = pytest.mark.broker
Starter = Callable[[str], "subprocess.Popen[str]"]


def names_of(folder: Path) -> list[str]:
    return sorted(psutil.Process(each.pid).name() for each in with_variable(OWNER_VARIABLE, str(folder)))


def of(node: RunningNode) -> Management:
    return Management(node.management_url, node.admin_username, node.admin_password)


def ask_for_a_queue(node: RunningNode, *, tls: bool = False) -> str:
    """Over AMQP, as its administrator."""
    credentials = pika.PlainCredentials(node.admin_username, node.admin_password)
    parameters = pika.ConnectionParameters("127.0.0.1", node.amqp_port, "/", credentials)
    if tls:
        options = pika.SSLOptions(ssl.create_default_context(cafile=node.ca_file), "localhost")
        parameters = pika.ConnectionParameters("127.0.0.1", node.amqps_port, "/", credentials, ssl_options=options)
    connection = pika.BlockingConnection(parameters)
    try:
        queue: str = connection.channel().queue_declare("", exclusive=True).method.queue
        return queue
    finally:
        connection.close()


def test_started_stopped_killed_and_started_again(folder: Path, node: RunningNode) -> None:
    first = start(NodeSpec(folder))
    files = files_in(folder)
    assert first.alive()
    assert first.directory == folder
    assert first.version.startswith(("3.", "4."))
    assert ask_for_a_queue(first).startswith("amq.gen-")
    # Beside the node of the session: each its own ports, cookie, password, epmd and name.
    assert {first.amqp_port, first.management_url}.isdisjoint({node.amqp_port, node.management_url})
    assert first.admin_password != node.admin_password
    assert files.cookie.read_text() != files_in(node.directory).cookie.read_text()
    with of(first) as management, of(node) as others:
        management.put_vhost("kept", "")
        assert management.overview().node != others.overview().node

    first.stop()
    first.stop()
    assert not first.alive()
    assert names_of(folder) == []
    assert nodes.find(folder) is None
    assert nodes.stop(folder) is False

    second = start(NodeSpec(folder))
    assert (second.amqp_port, second.management_url) == (first.amqp_port, first.management_url)
    assert second.pid != first.pid
    with of(second) as management:
        assert "kept" in {vhost.name for vhost in management.vhosts()}
        management.put_vhost("kept too", "")

    os.kill(second.pid, signal.SIGKILL)
    second.stop()
    assert not second.alive()
    assert names_of(folder) == []
    with start(NodeSpec(folder)) as third, of(third) as management:
        assert {"kept", "kept too"} <= {vhost.name for vhost in management.vhosts()}
    assert names_of(folder) == []
    assert node.alive()


def test_what_is_written_to_the_journal_of_quorum_queues_is_on_the_disk(node: RunningNode) -> None:
    if node.version.startswith("4.3."):
        pytest.skip("RabbitMQ 4.3 no longer knows the setting; its journal is synced after writing.")
    process = Path("/proc", str(node.pid))
    journals = [each for each in (process / "fd").iterdir() if str(each.readlink()).endswith(".wal")]
    assert journals
    for journal in journals:
        flags = (process / "fdinfo" / journal.name).read_text().split("flags:")[1].split()[0]
        assert int(flags, 8) & os.O_SYNC == os.O_SYNC


def test_the_next_start_ends_a_leftover_that_is_set_up_otherwise_and_adopts_one_that_is_not(
    folder: Path, starter: Starter
) -> None:
    owner = starter("running = node.start(NodeSpec(folder)); print(running.pid, flush=True)")
    left = nodes.find(folder)
    assert left is not None
    owner.kill()
    owner.wait()
    otherwise = NodeSpec(folder, plain=False, tls=True)
    owner = starter("node.start(NodeSpec(folder, plain=False, tls=True)); print(0, flush=True)")
    assert not left.alive()
    assert names_of(folder).count("beam.smp") == 1
    found = nodes.find(folder)
    assert found is not None
    assert found.pid != left.pid
    assert found.alive()
    with pytest.raises(NodeError, match=f"in use by process {owner.pid}: stop that one"):
        start(otherwise)
    with pytest.raises(NodeError, match=f"in use by process {owner.pid}"):
        nodes.stop(folder)
    with pytest.raises(NodeError, match=f"in use by process {owner.pid}"):
        found.stop()
    owner.kill()
    owner.wait()
    assert found.alive()

    adopted = start(otherwise)
    assert (adopted.pid, adopted.amqps_port, adopted.version) == (found.pid, found.amqps_port, found.version)
    assert names_of(folder).count("epmd") == 1
    assert ask_for_a_queue(adopted, tls=True)
    adopted.stop()
    assert names_of(folder) == []


def test_an_owner_killed_in_the_middle_of_the_boot(folder: Path, starter: Starter) -> None:
    # Killed before the Erlang machine is on record: only its environment tells whose it is.
    owner = starter("""
        def kill_us(pid):
            if pid != epmd_pid: print(pid, flush=True); signal.pause()
            return identify(pid)
        identify, epmd_pid, spawn = node_boot.identify, 0, node_boot._spawn
        def spawned(*arguments):
            global epmd_pid
            process = spawn(*arguments)
            epmd_pid = epmd_pid or process.pid
            return process
        node_boot._spawn, node_boot.identify = spawned, kill_us
        node.start(NodeSpec(folder))
    """)
    owner.kill()
    owner.wait()
    assert nodes.find(folder) is None
    # A process that was only just forked still shows its parent's environment.
    end = time.monotonic() + 10
    while len(left := with_variable(OWNER_VARIABLE, str(folder))) < 2:
        assert time.monotonic() < end
        time.sleep(0.01)
    ours = start(NodeSpec(folder))
    assert ask_for_a_queue(ours)
    assert names_of(folder).count("beam.smp") == 1
    assert set(left).isdisjoint(with_variable(OWNER_VARIABLE, str(folder)))
    ours.stop()
    assert names_of(folder) == []


def test_whoever_has_the_pid_now_is_left_alone(folder: Path) -> None:
    files = files_in(folder)
    node_record.prepare(files)
    innocent = subprocess.Popen(["sleep", "60"])
    try:
        theirs = identify(innocent.pid)
        assert theirs is not None
        earlier = msgspec.structs.replace(theirs, started=theirs.started - 1)
        running = node_record.RunningRecord("", Ports(1, 2, 3, 4), epmd=earlier, node=earlier)
        node_record.save_running(files, running)
        files.lock.touch()
        assert nodes.find(folder) is None
        assert nodes.stop(folder) is False
        assert innocent.poll() is None
        # And the very process that is on record is ended, so that the test above says something.
        node_record.save_running(files, msgspec.structs.replace(running, epmd=None, node=theirs))
        assert nodes.stop(folder) is True
        assert innocent.wait(10) == -signal.SIGTERM
    finally:
        innocent.kill()
        innocent.wait()


def test_a_port_that_was_asked_for_and_is_taken(folder: Path, node: RunningNode) -> None:
    management_port = int(node.management_url.rpartition(":")[2])
    with pytest.raises(NodeError, match=f"Port {node.amqp_port} on 127.0.0.1, wanted for AMQP, is taken: end what"):
        start(NodeSpec(folder, amqp_port=node.amqp_port))
    with pytest.raises(
        NodeError, match=f"Port {management_port} on 127.0.0.1, wanted for the management API, is taken"
    ):
        start(NodeSpec(folder, management_port=management_port))
    assert names_of(folder) == []


@pytest.mark.parametrize("taken", [("amqp", "epmd"), ("distribution",)])
def test_a_port_taken_between_our_look_and_the_nodes(
    folder: Path, monkeypatch: pytest.MonkeyPatch, taken: tuple[str, ...]
) -> None:
    """One at the first attempt, another at the second."""
    chosen: list[Ports] = []
    choose = ports.choose
    with contextlib.ExitStack() as thieves:

        def look(*args: object, **kwargs: object) -> Ports:
            chosen.append(choose(*args, **kwargs))  # type: ignore[arg-type]
            if len(chosen) <= len(taken):
                thief = thieves.enter_context(socket.socket())
                thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # the attempt before used it as well
                thief.bind(("127.0.0.1", getattr(chosen[-1], taken[len(chosen) - 1])))
                thief.listen()
            return chosen[-1]

        monkeypatch.setattr(ports, "choose", look)
        with start(NodeSpec(folder, start_timeout_s=40)) as running:
            assert len(chosen) == len(taken) + 1
            for attempt, which in enumerate(taken):
                assert getattr(chosen[attempt + 1], which) != getattr(chosen[attempt], which)
            assert ask_for_a_queue(running)


def test_any_path_will_do_and_nothing_of_where_we_are_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    Path("preload.eval").write_text('file:write_file("was-run", "").')
    folder = tmp_path / "several words" / "jürgen #1 $HOME %20 [{x}]" / ("x" * 200) / ("y" * 200) / "node"
    with start(NodeSpec(folder, plain=False, tls=True)) as running:
        assert running.amqp_port == 0
        assert ask_for_a_queue(running, tls=True)
    assert running.log_file.stat().st_size > 0  # it is written some seconds later, or at the end
    assert names_of(folder) == []
    assert [each.name for each in here.iterdir()] == ["preload.eval"]


@pytest.mark.parametrize("name", ["it's", "two\nlines"])
def test_but_not_one_that_rabbitmq_trips_over(tmp_path: Path, name: str) -> None:
    with pytest.raises(NodeError, match="holds a character that RabbitMQ cannot use: choose another"):
        start(NodeSpec(tmp_path / name))
    assert not (tmp_path / name).exists()


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NodeError, match=r"The node's folder .*/file/node cannot be made: Not a directory\."):
        start(NodeSpec(tmp_path / "file" / "node"))


def test_a_record_that_cannot_be_read(folder: Path) -> None:
    files = files_in(folder)
    node_record.prepare(files)
    files.record.write_text("{")
    with pytest.raises(NodeError, match=r"node\.json cannot be read: restore it, or remove"):
        start(NodeSpec(folder))


def test_an_administrator_whose_password_was_changed(folder: Path) -> None:
    with start(NodeSpec(folder)) as running, of(running) as management:
        management.put_user(running.admin_username, password_hash("another", b"salt"), ("administrator",))
    with pytest.raises(NodeError, match=r"does not take the administrator's password in .*node\.json") as caught:
        start(NodeSpec(folder))
    assert running.admin_password not in caught.value.message
    assert names_of(folder) == []


def test_a_configuration_that_rabbitmq_refuses(folder: Path) -> None:
    with pytest.raises(NodeError, match=r"ended while it started\. It said: .*no_such_setting") as caught:
        start(NodeSpec(folder, extra_conf="no_such_setting = 1"))
    assert "\n" not in caught.value.message
    assert names_of(folder) == []


def test_a_node_that_takes_too_long(folder: Path) -> None:
    with pytest.raises(NodeError, match="did not answer within 0 s"):
        start(NodeSpec(folder, start_timeout_s=0.3))
    assert names_of(folder) == []
    # A first boot that was cut short leaves data beyond repair; nothing was in them.
    with start(NodeSpec(folder)) as running:
        assert ask_for_a_queue(running)
