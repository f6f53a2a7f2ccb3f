"""Child processes of a run and what Linux says of them: CPU time and proportional set size.

Every child is ended when its block ends, also after an error. Knows nothing of what the children do.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
END_S = 40
"""How long a child may take to end in order before it is killed."""


@contextmanager
def child(arguments: Sequence[str], log: Path, **options: object) -> Iterator[subprocess.Popen[str]]:
    """A process whose stderr goes to `log` (stdout too unless piped); SIGTERM at the end of the block, then SIGKILL."""
    with log.open("a") as sink:
        settings: dict[str, object] = {"stdout": sink, "stderr": sink, "text": True, "cwd": ROOT, **options}
        process = subprocess.Popen(list(arguments), **settings)  # type: ignore[call-overload]
    try:
        yield process
    finally:
        _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    if process.stdin is not None:  # such a child ends when its input does
        process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
    if process.stdout is not None:
        process.stdout.close()
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(END_S)
    except subprocess.TimeoutExpired:
        family = family_of(process.pid)
        for pid in family:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        process.wait()


def family_of(pid: int) -> list[int]:
    """The process and all its descendants that are alive."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue
            children.setdefault(parent_in_stat(stat), []).append(int(entry.name))
    family = [pid] if Path(f"/proc/{pid}").exists() else []
    for member in family:
        family.extend(children.get(member, []))
    return family


def command_line(pid: int) -> list[str]:
    """The process's arguments; empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    except (FileNotFoundError, ProcessLookupError):
        return []


def cpu_s(pids: Sequence[int]) -> float:
    """User and system seconds these processes have used so far; processes that are gone count nothing."""
    total = 0.0
    for pid in pids:
        try:
            total += cpu_ticks_in_stat(Path(f"/proc/{pid}/stat").read_text()) / os.sysconf("SC_CLK_TCK")
        except (FileNotFoundError, ProcessLookupError):
            continue
    return total


def pss_mb(pids: Sequence[int]) -> float:
    """Proportional set size in MB (10^6 bytes): pages shared between processes are counted once, in shares."""
    return sum(pss_kib_in_rollup(Path(f"/proc/{pid}/smaps_rollup").read_text()) for pid in pids) * 1024 / 1e6


def parent_in_stat(stat: str) -> int:
    """The parent's pid; the command name in parentheses may hold spaces and parentheses itself."""
    return int(stat.rpartition(")")[2].split()[1])


def cpu_ticks_in_stat(stat: str) -> int:
    """User plus system clock ticks."""
    fields = stat.rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def pss_kib_in_rollup(rollup: str) -> int:
    """The `Pss:` line in KiB; ValueError when there is none."""
    for line in rollup.splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    raise ValueError("smaps_rollup has no Pss line.")


def rss_mb(pids: Sequence[int]) -> float:
    """Resident set size in MB (10^6 bytes), shared pages counted with each."""
    return sum(rss_kib_in_status(Path(f"/proc/{pid}/status").read_text()) for pid in pids) * 1024 / 1e6


def rss_kib_in_status(status: str) -> int:
    """The `VmRSS:` line in KiB; 0 for what has no memory any more."""
    return next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:")), 0)
