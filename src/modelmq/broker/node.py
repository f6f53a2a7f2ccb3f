"""A private RabbitMQ node: started from a folder of its own, found again, and stopped without a trace.

`modelmq up`, `modelmq broker` and the tests use it where there is no RabbitMQ to be given one. Only its owner can read
the folder, every listener is on the loopback address, and no process outlives `stop`; a node whose owner was killed is
adopted by the next start, or ended. Knows nothing of virtual hosts, users beside its administrator, or queues.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from modelmq.broker import certificates, node_config
from modelmq.broker import node_record as records
from modelmq.broker import ports as port_choice
from modelmq.broker.install import Installation, locate
from modelmq.broker.node_boot import Children, NotReady, PortTaken, boot, fingerprint, until_ready
from modelmq.broker.node_config import LOOPBACK, Configuration, NodeFiles, Ports, files_in
from modelmq.broker.node_end import end_everything
from modelmq.broker.node_record import Lock, NodeRecord, RunningRecord
from modelmq.broker.processes import PROC, alive
from modelmq.errors import NodeError

_ATTEMPTS = 3
_STOP_TIMEOUT_S = 30.0
_ADOPT_TIMEOUT_S = 20.0
"""How long a node that is there may take to answer; it may have been left in the middle of its boot."""


class NodeSpec(msgspec.Struct, frozen=True):
    """Which node. A port of 0 is last time's if that is free, else any; `extra_conf` is added to rabbitmq.conf.

    AMQP and the management API are each served `plain`, with `tls`, or both ways; then the ports are the plain ones.
    With `client_certificates` the authority in `ca_file` signs logins, by their common name. `home` is the folder
    of the RabbitMQ to start, as RABBITMQ_HOME would name it; None for what that says. `epmd_port` is that of an epmd
    which somebody else keeps, as the nodes of a cluster must share one; 0 for one of its own. A node without its own
    is never adopted.
    """

    directory: Path
    amqp_port: int = 0
    management_port: int = 0
    plain: bool = True
    tls: bool = False
    client_certificates: bool = False
    extra_conf: str = ""
    home: Path | None = None
    epmd_port: int = 0
    start_timeout_s: float = 90.0


class RunningNode:
    """A node that was started, adopted or found. Its administrator's password is not shown by repr."""

    def __init__(
        self, files: NodeFiles, record: NodeRecord, running: RunningRecord, lock: Lock | None, children: Children = ()
    ) -> None:
        self._files = files
        self._record = record
        self._running = running
        self._lock = lock
        self._children = children
        self._stopped = False

    def __enter__(self) -> RunningNode:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

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
        """On the loopback address, without TLS; 0 if the node serves only with it."""
        return self._running.ports.amqp

    @property
    def amqps_port(self) -> int:
        """On the loopback address, with TLS; 0 if the node was started without."""
        return self._running.ports.amqps

    @property
    def ca_file(self) -> str:
        """The certificate authority to verify the TLS listeners with; empty without TLS."""
        return str(self._files.ca) if self.amqps_port else ""

    @property
    def management_url(self) -> str:
        """Of the management API, without a path; with TLS only where it is not to be had without."""
        port = self._running.ports.management
        return f"http://{LOOPBACK}:{port}" if port else self.secure_management_url

    @property
    def secure_management_url(self) -> str:
        """The same with TLS; empty without."""
        return f"https://{LOOPBACK}:{self._running.ports.https}" if self._running.ports.https else ""

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
        """Of RabbitMQ; empty for a node that was found while it still starts."""
        return self._running.version

    @property
    def log_file(self) -> Path:
        """RabbitMQ's own log."""
        return self._files.log

    def alive(self) -> bool:
        """Whether the Erlang machine still runs."""
        return self._running.node is not None and alive(self._running.node)

    def stop(self, timeout_s: float = _STOP_TIMEOUT_S) -> None:
        """Ends the node in order, by force after `timeout_s`, and everything that belongs to it. Idempotent.

        Raises NodeError when another process uses the node, or one of its processes cannot be ended.
        """
        if self._stopped:
            return
        lock = self._lock or records.take_lock(self._files)
        try:
            end_everything(self._files, self._record, self._running, timeout_s)
            for child in self._children:
                child.wait()
            self._stopped = True
        finally:
            lock.release()
            self._lock = None


def start(spec: NodeSpec) -> RunningNode:
    """Starts the folder's node, or adopts the one that still runs from it; returns when it answers.

    The folder is this process's until `stop`, or until it ends. Raises NodeError.
    """
    if not PROC.joinpath("self/stat").exists():
        raise NodeError("A private RabbitMQ node needs Linux: name a RabbitMQ to connect to in broker.hosts instead.")
    installation = locate(os.environ, home=spec.home)
    files = files_in(spec.directory.resolve())
    records.prepare(files)
    lock = records.take_lock(files)
    try:
        record = records.load(files)
        return _adopt(spec, files, record, lock) or _start_anew(spec, files, record, lock, installation)
    except BaseException:
        lock.release()
        raise


def find(directory: Path) -> RunningNode | None:
    """The node that runs from a folder, whoever started it; None if there is none. It may not answer just now."""
    files = files_in(directory.resolve())
    record = records.find_record(files)
    running = records.load_running(files)
    if record is None or running is None or running.node is None or not alive(running.node):
        return None
    return RunningNode(files, record, running, None)


def stop(directory: Path, timeout_s: float = _STOP_TIMEOUT_S) -> bool:
    """Ends whatever still runs from a folder, a node or its remains; False if nothing did. Raises NodeError."""
    files = files_in(directory.resolve())
    if not files.lock.exists():
        return False
    lock = records.take_lock(files)
    try:
        return end_everything(files, records.find_record(files), records.load_running(files), timeout_s)
    finally:
        lock.release()


def _adopt(spec: NodeSpec, files: NodeFiles, record: NodeRecord, lock: Lock) -> RunningNode | None:
    """The node of an owner that is gone, if it is the one we would start; any other leftover is ended."""
    running = records.load_running(files)
    if running is not None and _fits(spec, files, record, running):
        node = running.node
        try:
            version = until_ready(
                files,
                record,
                running.ports,
                lambda: node is not None and alive(node),
                min(spec.start_timeout_s, _ADOPT_TIMEOUT_S),
            )
        except NotReady:
            pass
        else:
            running = msgspec.structs.replace(running, version=version)
            records.save_running(files, running)
            return RunningNode(files, _proven(files, record), running, lock)
    end_everything(files, record, running, _STOP_TIMEOUT_S)
    return None


def _fits(spec: NodeSpec, files: NodeFiles, record: NodeRecord, running: RunningRecord) -> bool:
    if running.node is None or not alive(running.node) or running.epmd is None or not alive(running.epmd):
        return False
    ports = running.ports
    asked = ((spec.amqp_port, ports.amqp or ports.amqps), (spec.management_port, ports.management or ports.https))
    if any(wanted and wanted != has for wanted, has in asked):
        return False
    if (spec.plain, spec.tls) != (bool(ports.amqp), bool(ports.https)):
        return False
    return running.fingerprint == fingerprint(_configuration(spec, files, record, ports))


def _start_anew(
    spec: NodeSpec, files: NodeFiles, record: NodeRecord, lock: Lock, installation: Installation
) -> RunningNode:
    if spec.tls:
        certificates.make(files.ca, files.certificate, files.key)
    attempt = 1
    while True:
        ports = port_choice.choose(
            record.ports, amqp=spec.amqp_port, management=spec.management_port, plain=spec.plain, tls=spec.tls
        )
        if spec.epmd_port:
            ports = msgspec.structs.replace(ports, epmd=spec.epmd_port)
        record = msgspec.structs.replace(record, ports=ports)
        records.save(files, record)
        configuration = _configuration(spec, files, record, ports)
        try:
            running, children = boot(
                files,
                record,
                ports,
                configuration,
                installation,
                spec.start_timeout_s,
                own_epmd=not spec.epmd_port,
            )
        except PortTaken:
            if attempt == _ATTEMPTS:
                raise
            attempt += 1
        else:
            return RunningNode(files, _proven(files, record), running, lock, children)


def _proven(files: NodeFiles, record: NodeRecord) -> NodeRecord:
    if record.proven:
        return record
    record = msgspec.structs.replace(record, proven=True)
    records.save(files, record)
    return record


def _configuration(spec: NodeSpec, files: NodeFiles, record: NodeRecord, ports: Ports) -> Configuration:
    machine_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    memory_bytes = node_config.memory_limit_bytes(machine_bytes)
    by_certificate = spec.client_certificates
    conf = node_config.render_conf(
        files, ports, record.username, record.password, memory_bytes, client_certificates=by_certificate
    )
    return Configuration(
        f"{conf}{spec.extra_conf}\n" if spec.extra_conf else conf,
        node_config.render_plugins(client_certificates=by_certificate),
    )
