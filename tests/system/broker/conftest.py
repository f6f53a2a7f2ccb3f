"""A node of a test's own, and processes that start it and are killed."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from modelmq.broker import node
from modelmq.broker.node_config import OWNER_VARIABLE
from modelmq.broker.processes import with_variable

Starter = Callable[[str], "subprocess.Popen[str]"]
HEAD = """
import pathlib, signal, sys
from modelmq.broker import node, node_boot
from modelmq.broker.node import NodeSpec
folder = pathlib.Path(sys.argv[1])
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A node's folder; whatever still runs from it is ended after the test."""
    path = tmp_path / "node"
    yield path
    node.stop(path)
    assert with_variable(OWNER_VARIABLE, str(path)) == []


@pytest.fixture
def starter(folder: Path) -> Iterator[Starter]:
    """Runs code in a process of its own, until that has printed a line; killed after the test."""
    started: list[subprocess.Popen[str]] = []

    def run(code: str) -> subprocess.Popen[str]:
        script = f"{HEAD}{textwrap.dedent(code)}\nsignal.pause()"
        command = [sys.executable, "-c", script, str(folder)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline(), "it ended"
        return process

    yield run
    for process in started:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
