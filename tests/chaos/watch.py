"""Ends everything of a run when the run itself is killed and cannot: a process that sees its pipe close."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from modelmq.broker.processes import end, with_variable

RUN_VARIABLE = "CHAOS_RUN"
"""In the environment of everything a run starts, by which what is left of it is found."""

_WATCH = """
import pathlib, sys
sys.stdin.read()
from modelmq.broker import node
from modelmq.broker.processes import end, with_variable
end(with_variable(sys.argv[1], sys.argv[2]), 0.0)
for folder in pathlib.Path(sys.argv[3]).glob("node*"):
    node.stop(folder)
"""


@contextmanager
def watched(folder: Path) -> Iterator[str]:
    """Marks this process's environment for the block; what is left at its end, or at the process's, is ended."""
    token = secrets.token_hex(8)
    command = [sys.executable, "-c", _WATCH, RUN_VARIABLE, token, str(folder)]
    watch = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    os.environ[RUN_VARIABLE] = token
    try:
        yield token
    finally:
        del os.environ[RUN_VARIABLE]
        left = [process for process in with_variable(RUN_VARIABLE, token) if process.pid != os.getpid()]
        end(left, 0.0)
        watch.communicate(timeout=90)
