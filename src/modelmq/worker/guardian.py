"""`guardian.py <worker's pid> <link> <command>…`: runs a model's process, and nothing of it outlives it or its worker.

Stands between executor and child, as the parent of the model's process. The kernel gives it every orphan below it, so
whatever the model starts, in whatever session, is found and ended here: after the model, when the worker says so, and
when the worker is gone, killed or not. Needs the standard library only, and runs nothing of the model itself.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import sys

END = signal.SIGUSR1
"""Tells a guardian to end the model and all that it started. The kernel sends the same when the worker is gone."""
OF_THE_TERMINAL = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""They reach whole groups of processes, and no model: the worker decides when that stops."""

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_NEWS = (END, signal.SIGCHLD)
_LOOK_AGAIN_S = 0.1


def main(worker: int, link: int, command: list[str]) -> None:
    """Run the command, which inherits the descriptor `link`, and end as it does once all that it started is gone."""
    os.setpgid(0, 0)  # by which the worker ends what is left if somebody kills the guardian
    for number in OF_THE_TERMINAL:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, _NEWS)
    end_with(worker, END)
    _control(_PR_SET_CHILD_SUBREAPER, 1)
    guardian = os.getpid()
    model = os.fork()
    if model == 0:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _NEWS)
        end_with(guardian, signal.SIGKILL)
        os.execv(command[0], command)  # noqa: S606 - no shell is wanted
    os.close(link)
    _end_like(_guard(model))


def end_with(parent: int, number: signal.Signals) -> None:
    """Have the kernel send this process a signal at its parent's end, even while it computes and reads no socket."""
    _control(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:  # it ended before the line above
        os._exit(0)


def _control(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value)


def _guard(model: int) -> int:
    """Wait for the model's end or for the word to end it, and end all that is left. The model's wait status."""
    status: int | None = None
    while status is None and signal.sigwait(_NEWS) != END:
        status = _reaped().get(model)
    return _end_all_below(model, status)


def _end_all_below(model: int, status: int | None) -> int:
    """Child after child, as each one's own become ours: so a number cannot be a stranger's by the time it is used."""
    while True:
        left = [pid for pid in _children() or ([model] if status is None else []) if _kill(pid)]
        ended = _reaped()
        status = ended.get(model, status)
        if status is not None and not left and not ended:
            return status
        if not ended:
            signal.sigtimedwait([signal.SIGCHLD], _LOOK_AGAIN_S)


def _kill(pid: int) -> bool:
    """False for a program with more rights than ours, which must end by itself."""
    with contextlib.suppress(PermissionError, ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
        return True
    return False


def _reaped() -> dict[int, int]:
    """The wait statuses of all children, born or taken in, that have ended."""
    ended: dict[int, int] = {}
    with contextlib.suppress(ChildProcessError):  # there are none at all
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            ended[pid] = status
    return ended


def _children() -> list[int]:
    """Those that have not been reaped. Their numbers stay theirs until then."""
    own = str(os.getpid())
    found = os.listdir("/proc") if sys.platform == "linux" else []
    return [int(name) for name in found if name.isdecimal() and _parent(name) == own]


def _parent(pid: str) -> str:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stat:
            return stat.read().rpartition(")")[2].split()[1]  # a process may have any name
    except OSError:  # it is gone
        return ""


def _end_like(status: int) -> None:
    """What the worker sees is how the model ended."""
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the model may have left one of its own
        with contextlib.suppress(OSError):  # SIGKILL has no other disposition
            signal.signal(-code, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {-code})
        os.kill(os.getpid(), -code)
    os._exit(code if code >= 0 else 128 - code)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
