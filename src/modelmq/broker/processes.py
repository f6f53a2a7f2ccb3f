"""Processes known by pid and start time together, read from /proc, and ended for sure.

A pid alone may belong to somebody else after its process ended, so nothing here signals a process it cannot tell
apart from its successor. Knows nothing of what the processes do.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Iterable
from pathlib import Path

import msgspec

PROC = Path("/proc")


class ProcessId(msgspec.Struct, frozen=True):
    """One process of this machine's current boot. `started` counts clock ticks since that boot."""

    pid: int
    started: int
    boot: str


class Stat(msgspec.Struct, frozen=True):
    """What we use of /proc/<pid>/stat."""

    state: str
    parent: int
    started: int


def parse_stat(text: str) -> Stat:
    """Reads one line of proc(5)'s stat. The command's name may hold spaces and brackets. Raises ValueError."""
    fields = text.rpartition(")")[2].split()
    if len(fields) < 20:
        raise ValueError("not a stat line")
    return Stat(state=fields[0], parent=int(fields[1]), started=int(fields[19]))


def parse_environ(data: bytes, name: str) -> str:
    """A variable of /proc/<pid>/environ; empty when it is not set."""
    prefix = name.encode() + b"="
    for item in data.split(b"\0"):
        if item.startswith(prefix):
            return os.fsdecode(item[len(prefix) :])
    return ""


def boot_id() -> str:
    """Names the machine's current boot; start times of another boot mean nothing in this one."""
    return (PROC / "sys/kernel/random/boot_id").read_text("ascii").strip()


def identify(pid: int) -> ProcessId | None:
    """The process that has this pid now; None when there is none, or only a zombie that waits for its parent."""
    try:
        stat = _stat(pid)
        return None if stat.state in "ZX" else ProcessId(pid, stat.started, boot_id())
    except (OSError, ValueError):
        return None


def alive(process: ProcessId) -> bool:
    """Whether this very process still runs."""
    return identify(process.pid) == process


def family(pid: int) -> list[ProcessId]:
    """The process and all its living descendants, parents first."""
    children: dict[int, list[int]] = {}
    for each in _pids():
        try:
            children.setdefault(_stat(each).parent, []).append(each)
        except (OSError, ValueError):
            continue
    found: list[ProcessId] = []
    waiting = [pid]
    while waiting:
        here = waiting.pop(0)
        process = identify(here)
        if process is not None:
            found.append(process)
        waiting += children.get(here, [])
    return found


def with_variable(name: str, value: str) -> list[ProcessId]:
    """Our user's processes that were started with this environment variable, ourselves left out."""
    found = []
    for pid in _pids():
        if pid == os.getpid():
            continue
        process = identify(pid)
        try:
            matches = parse_environ((PROC / str(pid) / "environ").read_bytes(), name) == value
        except OSError:
            continue  # gone, or somebody else's
        if process is not None and matches:
            found.append(process)
    return found


def end(processes: Iterable[ProcessId], timeout_s: float) -> bool:
    """Asks all to end (SIGTERM), makes those that stay after `timeout_s` (SIGKILL). False: one cannot be ended."""
    held = [(each, descriptor) for each in processes if (descriptor := _open(each)) is not None]
    try:
        descriptors = [descriptor for _, descriptor in held]
        _send(descriptors, signal.SIGTERM)
        left = _wait(descriptors, timeout_s)
        _send(left, signal.SIGKILL)
        return not _wait(left, 5.0)
    finally:
        for _, descriptor in held:
            os.close(descriptor)


def wait(processes: Iterable[ProcessId], timeout_s: float) -> list[ProcessId]:
    """Waits until all have ended; those that still run after `timeout_s`."""
    held = {descriptor: each for each in processes if (descriptor := _open(each)) is not None}
    try:
        return [held[descriptor] for descriptor in _wait(list(held), timeout_s)]
    finally:
        for descriptor in held:
            os.close(descriptor)


def _open(process: ProcessId) -> int | None:
    try:
        descriptor = os.pidfd_open(process.pid)
    except OSError:
        return None
    if alive(process):  # looked at after the descriptor was taken, so it cannot become somebody else any more
        return descriptor
    os.close(descriptor)
    return None


def _send(descriptors: Iterable[int], number: signal.Signals) -> None:
    for descriptor in descriptors:
        try:
            signal.pidfd_send_signal(descriptor, number)
        except (ProcessLookupError, PermissionError):
            continue


def _wait(descriptors: list[int], timeout_s: float) -> list[int]:
    """A descriptor becomes readable when its process has ended, also while it is still a zombie."""
    left = list(descriptors)
    deadline = time.monotonic() + timeout_s
    while left:
        poll = select.poll()
        for descriptor in left:
            poll.register(descriptor, select.POLLIN)
        ready = {descriptor for descriptor, _ in poll.poll(max(deadline - time.monotonic(), 0.0) * 1000)}
        left = [descriptor for descriptor in left if descriptor not in ready]
        if not ready:
            break
    return left


def _stat(pid: int) -> Stat:
    return parse_stat((PROC / str(pid) / "stat").read_text("utf-8", "replace"))


def _pids() -> list[int]:
    return [int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit()]
