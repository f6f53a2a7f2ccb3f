"""Run by path, before a service: asks the kernel to end the service when the supervisor dies, then becomes it.

`launch.py <supervisor's pid> <module> <argument>…`. The wish is kept across exec, and lost if the supervisor is gone
before it was made, hence the look at the parent. Imports next to nothing: every service start waits for it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(parent: int, module: str, arguments: list[str]) -> None:
    """Does not return."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            sys.exit(1)
    # -P: a file in the user's folder must not take the place of a module of ours.
    os.execv(sys.executable, [sys.executable, "-P", "-m", module, *arguments])  # noqa: S606 - a shell is what we do not want


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3:])
