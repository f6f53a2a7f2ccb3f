"""Which processes a supervisor started, kept in files, so that the next one can end what a killed one left.

A process is known by its pid and start time together, so nobody else's is ever taken for ours. Knows nothing of what
the processes do.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from modelmq.broker import processes
from modelmq.broker.processes import ProcessId

_CHILDREN_S = 2.0


class Record(msgspec.Struct, frozen=True):
    """One service's process. `address` is where it is reached, empty where it is not."""

    name: str
    process: ProcessId
    role: str = ""
    address: str = ""


def write(folder: Path, record: Record) -> None:
    """Replaces the record of the same name, whole or not at all."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = folder / f".{record.name}.{os.getpid()}"
    draft.write_bytes(msgspec.json.encode(record))
    draft.replace(folder / f"{record.name}.json")


def remove(folder: Path, name: str) -> None:
    """Idempotent."""
    (folder / f"{name}.json").unlink(missing_ok=True)


def read(folder: Path) -> Iterator[Record]:
    """All records by name; what cannot be read is passed over."""
    for path in sorted(folder.glob("*.json")):
        try:
            yield msgspec.json.decode(path.read_bytes(), type=Record)
        except (OSError, msgspec.DecodeError):
            continue


def end(record: Record, timeout_s: float) -> bool:
    """Ends the process, asking first, and then what it leaves of its children. False: it did not run any more."""
    if not processes.alive(record.process):
        return False
    _, *children = processes.family(record.process.pid) or [record.process]
    processes.end([record.process], timeout_s)
    processes.end(children, _CHILDREN_S)
    return True


def end_all(folder: Path, timeout_s: float) -> list[str]:
    """Ends every process on record, by name, so gateways before workers; the names of those that still ran."""
    deadline = time.monotonic() + timeout_s
    ended = []
    for record in read(folder):
        if end(record, max(deadline - time.monotonic(), 0.1)):
            ended.append(record.name)
        remove(folder, record.name)
    return ended
