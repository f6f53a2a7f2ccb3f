"""A private RabbitMQ node: started from a folder of its own, found again, and stopped without a trace.

`modelmq up`, `modelmq broker` and the tests use it where there is no RabbitMQ to be given one. Only its owner can read
the folder, every listener is on the loopback address, and no process outlives `stop`; a node whose owner was killed is
adopted by the next start, or ended. Knows nothing of virtual hosts, users beside its administrator, or queues.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from modelmq.broker import certificates, node_config, ports, readiness
from modelmq.broker import node_record as records
from modelmq.broker.install import Installation, locate
from modelmq.broker.node_config import LOOPBACK, OWNER_VARIABLE, NodeFiles, Ports
from modelmq.broker.node_record import Lock, NodeRecord, RunningRecord
from modelmq.broker.processes import PROC, ProcessId, alive, end, family, identify, wait, with_variable
from modelmq.errors import NodeError

_POLL_S = 0.05
_ATTEMPTS = 3


class NodeSpec(msgspec.Struct, frozen=True):
    """Which node. A port of 0 is the one of last time if it is free, else any; `extra_conf` is added to rabbitmq.conf."""

    directory: Path
    amqp_port: int = 0
    management_port: int = 0
    tls: bool = False
    extra_conf: str = ""
    start_timeout_s: float = 90.0


class RunningNode:
    """A node that answers AMQP and management requests. Its administrator's password is not shown by repr."""

    def __init__(
        self,
        files: NodeFiles,
        record: NodeRecord,
        running: RunningRecord,
        lock: Lock | None,
        children: tuple[subprocess.Popen[bytes], ...] = (),
    ) -> None:
        self._files = files
        self._record = record
        self._running = running
        self._lock = lock
        self._children = children
        self._stopped = False

    def __repr__(self) -> str:
        return f"RunningNode({str(self.directory)!r}, pid={self.pid}, amqp_port={self.amqp_port})"

    @property
    def directory(self) -> Path:
        """The node's folder, absolute."""
        return self._files.folder

    @property
    def pid(self) -> int:
        """Of the Erlang machine."""
        return self._running.node.pid if self._running.node else 0

    @property
    def amqp_port(self) -> int:
        """On the loopback address, without TLS."""
        return self._running.ports.amqp

    @property
    def amqps_port(self) -> int:
        """On the loopback address, with TLS; 0 if the node was started without."""
        return self._running.ports.amqps

    @property
    def ca_file(self) -> str:
        """The certificate authority to verify the TLS listener with; empty without TLS."""
        return str(self._files.ca) if self.amqps_port else ""

    @property
    def management_url(self) -> str:
        """Of the management API, without a path."""
        return f"http://{LOOPBACK}:{self._running.ports.management}"

    @property
    def admin_username(self) -> str:
        """The node's only user at first."""
        return self._record.username

    @property
    def admin_password(self) -> str:
        """Of that user."""
        return self._record.password

    @property
    def version(self) -> str:
        """Of RabbitMQ."""
        return self._running.version

    @property
    def log_file(self) -> Path:
        """RabbitMQ's own log."""
        return self._files.log

    def alive(self) -> bool:
        """Whether the Erlang machine still runs."""
        return self._running.node is not None and alive(self._running.node)

    def stop(self, timeout_s: float = 30) -> None:
        """Ends the node in order, by force after `timeout_s`, and everything that belongs to it. Idempotent.

        Raises NodeError when another process uses the node, or one of its processes cannot be ended.
        """
        if self._stopped:
            return
        lock = self._lock or records.take_lock(self._files)
        try:
            _end_all(self._files, self._running, timeout_s)
            for child in self._children:
                child.wait()
            self._stopped = True
        finally:
            lock.release()


def start(spec: NodeSpec) -> RunningNode:
    """Starts the folder's node, or adopts the one that still runs from it; returns when it answers. Raises NodeError."""
    if not PROC.joinpath("self/stat").exists():
        raise NodeError("A private RabbitMQ node needs Linux: name a RabbitMQ to connect to in broker.hosts instead.")
    installation = locate(os.environ)
    files = NodeFiles(spec.directory.resolve())
    records.prepare(files)
    lock = records.take_lock(files)
    try:
        record = records.load(files)
        return _adopt(spec, files, record, lock) or _start_anew(spec, files, record, lock, installation)
    except BaseException:
        lock.release()
        raise


def find(directory: Path) -> RunningNode | None:
    """The node that runs from a folder, whoever started it; None if there is none. It may not answer yet or any more."""
    files = NodeFiles(directory.resolve())
    record = records.find_record(files)
    running = records.load_running(files)
    if record is None or running is None or running.node is None or not alive(running.node):
        return None
    return RunningNode(files, record, running, None)


def stop(directory: Path, timeout_s: float = 30) -> bool:
    """Ends whatever still runs from a folder, whole node or remains; False if nothing did. Raises NodeError."""
    files = NodeFiles(directory.resolve())
    if not files.lock.exists():
        return False
    lock = records.take_lock(files)
    try:
        running = records.load_running(files)
        found = bool(with_variable(OWNER_VARIABLE, str(files.folder)))
        _end_all(files, running, timeout_s)
        return found
    finally:
        lock.release()


# --- adopting what was left ---------------------------------------------------------------------------------------


def _adopt(spec: NodeSpec, files: NodeFiles, record: NodeRecord, lock: Lock) -> RunningNode | None:
    """The node of an owner that was killed, if it is the one we would start; any other leftover is ended."""
    running = records.load_running(files)
    if running is None or not _fits(spec, files, record, running):
        _end_all(files, running, timeout_s=10)
        return None
    node, epmd = running.node, running.epmd
    try:
        version = _until_ready(spec, record, running.ports, lambda: node is not None and alive(node))
    except _NotReady:
        version = ""
    if not version or epmd is None or not alive(epmd):
        _end_all(files, running, timeout_s=10)
        return None
    running = msgspec.structs.replace(running, version=version)
    records.save_running(files, running)
    return RunningNode(files, record, running, lock)


def _fits(spec: NodeSpec, files: NodeFiles, record: NodeRecord, running: RunningRecord) -> bool:
    if running.node is None or not alive(running.node):
        return False
    asked = ((spec.amqp_port, running.ports.amqp), (spec.management_port, running.ports.management))
    if any(wanted and wanted != has for wanted, has in asked) or spec.tls != bool(running.ports.amqps):
        return False
    return running.fingerprint == _fingerprint(_conf(spec, files, record, running.ports))


def _end_all(files: NodeFiles, running: RunningRecord | None, timeout_s: float) -> None:
    """The node first, as it tells epmd that it goes; then what it started; then whatever else came from this folder."""
    if running is not None:
        node = [running.node] if running.node else []
        descendants = family(running.node.pid)[1:] if running.node and alive(running.node) else []
        end(node, timeout_s)
        end(wait(descendants, 5.0), 0.0)
        end([running.epmd] if running.epmd else [], 5.0)
    if not end(with_variable(OWNER_VARIABLE, str(files.folder)), 2.0):
        raise NodeError(f"A process of the RabbitMQ node in {files.folder} cannot be ended: see `ps`.")
    records.forget_running(files)


# --- starting -----------------------------------------------------------------------------------------------------


class _NotReady(Exception):
    """`ended`: the node's process is gone; else it only took too long."""

    def __init__(self, *, ended: bool) -> None:
        super().__init__()
        self.ended = ended


def _start_anew(
    spec: NodeSpec, files: NodeFiles, record: NodeRecord, lock: Lock, installation: Installation
) -> RunningNode:
    if spec.tls:
        certificates.make(files.ca, files.certificate, files.key)
    for attempt in range(1, _ATTEMPTS + 1):
        chosen = ports.choose(record.ports, amqp=spec.amqp_port, management=spec.management_port, tls=spec.tls)
        record = msgspec.structs.replace(record, ports=chosen)
        records.save(files, record)
        log_offset = readiness.size_of(files.log)
        try:
            return _boot(spec, files, record, lock, installation)
        except _NotReady as error:
            problem = _problem(spec, files, log_offset, ended=error.ended)
            # Somebody may have taken a port between our look and the node's bind.
            if attempt == _ATTEMPTS or "eaddrinuse" not in problem.message:
                raise problem from None
    raise AssertionError("unreachable")


def _boot(spec: NodeSpec, files: NodeFiles, record: NodeRecord, lock: Lock, installation: Installation) -> RunningNode:
    chosen = record.ports
    assert chosen is not None
    conf = _conf(spec, files, record, chosen)
    records.write_private(files.conf, conf)
    records.write_private(files.advanced, node_config.render_advanced())
    records.write_private(files.plugins, node_config.render_plugins())
    schedulers = max(2, min(os.cpu_count() or 2, 8))
    environment = node_config.environment(files, record.name, chosen, installation.path, schedulers)
    running = RunningRecord(fingerprint=_fingerprint(conf), ports=chosen)
    records.save_running(files, running)
    children: list[subprocess.Popen[bytes]] = []
    try:
        epmd = _spawn([str(installation.epmd), "-port", str(chosen.epmd), "-address", LOOPBACK], environment, files)
        children.append(epmd)
        running = msgspec.structs.replace(running, epmd=identify(epmd.pid))
        records.save_running(files, running)
        node = _spawn([str(installation.server)], environment, files)
        children.append(node)
        running = msgspec.structs.replace(running, node=identify(node.pid))
        records.save_running(files, running)
        version = _until_ready(spec, record, chosen, lambda: node.poll() is None)
        running = msgspec.structs.replace(running, version=version)
        records.save_running(files, running)
    except BaseException:
        _end_all(files, running, timeout_s=0)
        for child in children:
            child.wait()
        raise
    return RunningNode(files, record, running, lock, tuple(children))


def _spawn(command: list[str], environment: dict[str, str], files: NodeFiles) -> subprocess.Popen[bytes]:
    """In a session of its own, so that a terminal's Ctrl-C reaches its owner only."""
    output = os.open(files.output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
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


def _until_ready(spec: NodeSpec, record: NodeRecord, chosen: Ports, runs: Callable[[], bool]) -> str:
    """Polls the ports until both answer; RabbitMQ's version. Raises _NotReady."""
    deadline = time.monotonic() + spec.start_timeout_s
    while True:
        version = _version(record, chosen)
        if version:
            return version
        if not runs():
            raise _NotReady(ended=True)
        if time.monotonic() > deadline:
            raise _NotReady(ended=False)
        time.sleep(_POLL_S)


def _version(record: NodeRecord, chosen: Ports) -> str:
    if not readiness.amqp_answers(chosen.amqp):
        return ""
    return readiness.management_version(chosen.management, record.username, record.password)


def _problem(spec: NodeSpec, files: NodeFiles, log_offset: int, *, ended: bool) -> NodeError:
    text = readiness.read_from(files.log, log_offset)
    lines = readiness.interesting_lines(text) or readiness.interesting_lines(readiness.read_from(files.output, 0))
    what = "ended while it started" if ended else f"did not answer within {spec.start_timeout_s:.0f} s"
    said = f" It said: {' / '.join(lines)}" if lines else " It said nothing."
    return NodeError(f"The private RabbitMQ node {what}.{said} Its log is {files.log}, its output {files.output}.")


def _conf(spec: NodeSpec, files: NodeFiles, record: NodeRecord, chosen: Ports) -> str:
    machine_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    memory_bytes = node_config.memory_limit_bytes(machine_bytes)
    conf = node_config.render_conf(files, chosen, record.username, record.password, memory_bytes)
    return f"{conf}{spec.extra_conf}\n" if spec.extra_conf else conf


def _fingerprint(conf: str) -> str:
    return hashlib.sha256((conf + node_config.render_advanced()).encode()).hexdigest()
