"""What a private node's folder remembers: its name, ports and administrator, and which processes run from it.

Everything is written whole or not at all, readable by its owner only. The lock says that somebody uses the folder; it
ends with that process however it ends, while the node itself may live on. Starts and stops nothing.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from pathlib import Path
from typing import TypeVar

import msgspec

from modelmq.broker.node_config import NodeFiles, Ports
from modelmq.broker.processes import ProcessId
from modelmq.errors import NodeError

T = TypeVar("T")


class NodeRecord(msgspec.Struct, frozen=True):
    """Kept as long as the folder. The node's data belong to its name; the password is the one it was first given.

    `proven` once the node has answered: data of a first boot that was cut short may be beyond RabbitMQ's repair.
    """

    name: str
    username: str
    password: str
    ports: Ports | None = None
    proven: bool = False

    def __repr__(self) -> str:
        return f"NodeRecord(name={self.name!r}, username={self.username!r}, ports={self.ports!r})"


class RunningRecord(msgspec.Struct, frozen=True):
    """What runs from the folder. `fingerprint` tells its configuration; `version` is empty until it has answered.

    `erl` is the program of the Erlang it runs in.
    """

    fingerprint: str
    ports: Ports
    epmd: ProcessId | None = None
    node: ProcessId | None = None
    version: str = ""
    erl: str = ""


def prepare(files: NodeFiles) -> None:
    """Makes the folder and those in it, for the owner only. Raises NodeError."""
    if "'" in str(files.folder) or not str(files.folder).isprintable():
        # RabbitMQ asks a shell for the free space of its folder, quoting it with apostrophes.
        raise NodeError(f"The path {str(files.folder)!r} holds a character that RabbitMQ cannot use: choose another.")
    try:
        for folder in (files.folder, files.data, files.logs):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.chmod(0o700)
    except OSError as error:
        raise NodeError(f"The node's folder {files.folder} cannot be made: {error.strerror}.") from error


def write_private(path: Path, content: str | bytes) -> None:
    """Replaces the file, with mode 0600 from its first byte on. Raises NodeError."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.new")
    data = content.encode() if isinstance(content, str) else content
    try:
        draft.unlink(missing_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        draft.replace(path)
    except OSError as error:
        raise NodeError(f"The file {path} cannot be written: {error.strerror}.") from error


def load(files: NodeFiles) -> NodeRecord:
    """The folder's record, made at its first use, with the cookie. Raises NodeError."""
    if files.record.exists():
        record = _read(files.record, NodeRecord)
        if record is None:
            raise NodeError(
                f"The file {files.record} cannot be read: restore it, or remove {files.folder} for an empty node."
            )
        if files.cookie.exists():
            return record
    else:
        # Node names of one machine must differ where nodes share an epmd; ours share none, but logs tell them apart.
        name = f"modelmq-{secrets.token_hex(4)}@localhost"
        record = NodeRecord(name=name, username="modelmq-admin", password=secrets.token_urlsafe(24))
    write_private(files.cookie, secrets.token_hex(24))
    files.cookie.chmod(0o400)
    save(files, record)
    return record


def find_record(files: NodeFiles) -> NodeRecord | None:
    """The folder's record, if it has one."""
    return _read(files.record, NodeRecord)


def save(files: NodeFiles, record: NodeRecord) -> None:
    """Raises NodeError."""
    write_private(files.record, msgspec.json.encode(record))


def load_running(files: NodeFiles) -> RunningRecord | None:
    """What was last said to run; whether it does is for the reader to find out."""
    return _read(files.running, RunningRecord)


def save_running(files: NodeFiles, running: RunningRecord) -> None:
    """Raises NodeError."""
    write_private(files.running, msgspec.json.encode(running))


def forget_running(files: NodeFiles) -> None:
    """Idempotent."""
    files.running.unlink(missing_ok=True)


class Lock:
    """The right to start and stop the folder's node, held by one process until it releases it or ends."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def release(self) -> None:
        """Idempotent."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def take_lock(files: NodeFiles) -> Lock:
    """Raises NodeError naming the process that holds it."""
    try:
        descriptor = os.open(files.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise NodeError(f"The file {files.lock} cannot be opened: {error.strerror}.") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.read(descriptor, 32).decode("ascii", "replace").strip() or "unknown"
        os.close(descriptor)
        raise NodeError(
            f"The RabbitMQ node in {files.folder} is in use by process {holder}: stop that one, or use another folder."
        ) from error
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return Lock(descriptor)


def _read(path: Path, kind: type[T]) -> T | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, msgspec.DecodeError):
        return None
