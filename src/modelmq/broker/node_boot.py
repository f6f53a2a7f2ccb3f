"""Starts the processes of a private node, epmd and the Erlang machine, and waits until the node answers.

The middle of `node.start`: every process is on record before the next one is started, so that a killed owner leaves
nothing unknown. Nothing is left running when this raises. Knows nothing of adopting.
"""

from __future__ import annotations

import hashlib
import http
import math
import os
import shutil
import ssl
import subprocess
import time
from collections.abc import Callable

import msgspec

from modelmq.broker import node_config, preloading, readiness
from modelmq.broker import node_record as records
from modelmq.broker.install import Installation
from modelmq.broker.node_config import Configuration, NodeFiles, Ports
from modelmq.broker.node_end import end_everything
from modelmq.broker.node_record import NodeRecord, RunningRecord
from modelmq.broker.processes import identify
from modelmq.errors import NodeError

_POLL_S = 0.05
_REFUSED_S = 2.0
_TAKEN = ("eaddrinuse", "address already in use", "distribution port")

Children = tuple["subprocess.Popen[bytes]", ...]


class NotReady(Exception):
    """`ended`: a process of the node is gone. `refused`: it knows its administrator no more. Else it took too long."""

    def __init__(self, *, ended: bool = False, refused: bool = False) -> None:
        super().__init__()
        self.ended = ended
        self.refused = refused


class PortTaken(NodeError):
    """Somebody took a port between our look at it and the node's."""


def boot(
    files: NodeFiles,
    record: NodeRecord,
    ports: Ports,
    configuration: Configuration,
    installation: Installation,
    timeout_s: float,
    *,
    own_epmd: bool,
) -> tuple[RunningRecord, Children]:
    """Starts a node that is not running; returns when it answers. Raises NodeError, PortTaken.

    Without `own_epmd` there is one on that port, which is somebody else's to end.
    """
    log_sizes = readiness.size_of(files.log), readiness.size_of(files.output)
    environment = write_files(files, record, ports, configuration, installation)
    running = RunningRecord(fingerprint=fingerprint(configuration), ports=ports, erl=str(installation.erl))
    records.save_running(files, running)
    children: list[subprocess.Popen[bytes]] = []
    try:
        if own_epmd:
            children.append(_spawn([str(installation.epmd), "-port", str(ports.epmd)], environment, files))
            running = msgspec.structs.replace(running, epmd=identify(children[-1].pid))
            records.save_running(files, running)
        children.append(_spawn([str(installation.server)], environment, files))
        running = msgspec.structs.replace(running, node=identify(children[-1].pid))
        records.save_running(files, running)
        # Without an epmd of its own the node may have met another's on that port.
        version = until_ready(files, record, ports, lambda: all(each.poll() is None for each in children), timeout_s)
    except BaseException as error:
        epmd_ended = own_epmd and bool(children) and children[0].poll() is not None
        end_everything(files, record, running, timeout_s=2)
        for child in children:
            child.wait()
        if not isinstance(error, NotReady):
            raise
        if epmd_ended:  # it says nothing, and there is one reason only
            raise PortTaken(f"Port {ports.epmd}, wanted for the node's epmd, was taken by another program.") from None
        raise _problem(files, log_sizes, timeout_s, error) from None
    running = msgspec.structs.replace(running, version=version)
    records.save_running(files, running)
    return running, tuple(children)


def write_files(
    files: NodeFiles, record: NodeRecord, ports: Ports, configuration: Configuration, installation: Installation
) -> dict[str, str]:
    """Writes what the node reads at start; the environment to start it with."""
    if not record.proven:
        shutil.rmtree(files.data, ignore_errors=True)
        records.prepare(files)
    records.write_private(files.conf, configuration.conf)
    records.write_private(files.advanced, node_config.render_advanced())
    records.write_private(files.plugins, configuration.plugins)
    records.write_private(files.preload, preloading.PROGRAM)
    schedulers = max(2, min(len(os.sched_getaffinity(0)), 8))
    common = node_config.environment(files, record.name, ports, installation.path, schedulers)
    return node_config.preloading(files, common)


def until_ready(files: NodeFiles, record: NodeRecord, ports: Ports, runs: Callable[[], bool], timeout_s: float) -> str:
    """Polls AMQP and the management API until both answer; RabbitMQ's version. Raises NotReady."""
    tls = None if ports.amqp else ssl.create_default_context(cafile=str(files.ca))
    deadline, refused_since = time.monotonic() + timeout_s, math.inf
    while True:
        now = time.monotonic()
        if not runs():
            raise NotReady(ended=True)
        if readiness.amqp_answers(ports.amqp or ports.amqps, tls):
            management = ports.management or ports.https
            status, version = readiness.management_answer(management, record.username, record.password, tls)
            if version:
                return version
            refused_since = min(refused_since, now) if status == http.HTTPStatus.UNAUTHORIZED else math.inf
        if now > deadline or now > refused_since + _REFUSED_S:
            raise NotReady(refused=refused_since < math.inf)
        time.sleep(_POLL_S)


def fingerprint(configuration: Configuration) -> str:
    """Tells one configuration from another."""
    text = configuration.conf + node_config.render_advanced() + configuration.plugins
    return hashlib.sha256(text.encode()).hexdigest()


def _spawn(command: list[str], environment: dict[str, str], files: NodeFiles) -> subprocess.Popen[bytes]:
    """In a session of its own, so that a terminal's Ctrl-C reaches its owner only."""
    output = os.open(files.output, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment,
            cwd=files.folder,
            umask=0o077,
            start_new_session=True,
        )
    except OSError as error:
        raise NodeError(f"{command[0]} cannot be started: {error.strerror}.") from error
    finally:
        os.close(output)


def _problem(files: NodeFiles, log_sizes: tuple[int, int], timeout_s: float, why: NotReady) -> NodeError:
    if why.refused:
        return NodeError(
            f"The private RabbitMQ node does not take the administrator's password in {files.record}, so it was "
            f"changed since: restore it with an older {files.record.name}, or remove {files.folder} for an empty node."
        )
    log = readiness.read_from(files.log, log_sizes[0])
    output = readiness.read_from(files.output, log_sizes[1])
    lines = readiness.severe_lines(log) or readiness.severe_lines(output) or readiness.last_lines(log or output)
    what = "ended while it started" if why.ended else f"did not answer within {timeout_s:.0f} s"
    said = f"It said: {' / '.join(lines)}" if lines else "It said nothing."
    kind = PortTaken if any(sign in (log + output).lower() for sign in _TAKEN) else NodeError
    return kind(f"The private RabbitMQ node {what}. {said} Its log is {files.log}, its output {files.output}.")
