"""Which processes a supervisor started, kept in files, so that the next one can end what a killed one left.

A process is known by its pid and start time together: a pid alone may belong to somebody else by now. Knows
nothing of what the processes do.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Record(msgspec.Struct, frozen=True):
    """One process. `started` names its start, with the machine's boot; empty where the system does not tell."""

    name: str
    pid: int
    started: str
    role: str = ""
    address: str = ""


def started(pid: int) -> str:
    """When the process began, as a text to compare; empty when there is none (a zombie is none)."""
    try:
        # The command's name may hold spaces and brackets; the fields after the last bracket are what proc(5) says.
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
        return "" if fields[0] in "ZX" else f"{_BOOT_ID.read_text('ascii').strip()}/{fields[19]}"
    except (OSError, IndexError):
        return ""


def alive(record: Record) -> bool:
    """Whether this very process still runs."""
    return record.started != "" and started(record.pid) == record.started


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
    """Ends the process and waits: SIGTERM, and SIGKILL to its group after `timeout_s`. False: it was not there."""
    if not alive(record):
        return False
    try:
        descriptor = os.pidfd_open(record.pid)
    except OSError:
        return False
    try:
        if not alive(record):  # looked at after the descriptor was taken, so it cannot become somebody else
            return False
        signal.pidfd_send_signal(descriptor, signal.SIGTERM)
        if not _gone(descriptor, timeout_s):
            if os.getpgid(record.pid) == record.pid:
                os.killpg(record.pid, signal.SIGKILL)
            else:
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            _gone(descriptor, timeout_s)
    except ProcessLookupError:
        pass
    finally:
        os.close(descriptor)
    return True


def _gone(descriptor: int, timeout_s: float) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(timeout_s * 1000))


def end_all(folder: Path, timeout_s: float) -> list[str]:
    """Ends every process on record, by name, so gateways before workers; the names of those that still ran."""
    deadline = time.monotonic() + timeout_s
    ended = []
    for record in read(folder):
        if end(record, max(deadline - time.monotonic(), 0.1)):
            ended.append(record.name)
        remove(folder, record.name)
    return ended
