"""`modelmq up` as a reader of the pages starts it: in a folder that looks like the checkout, on a port of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Ends what it started also when the tests are killed: then its standard input closes.
_UNTIL_INPUT_ENDS = '"$@" & pid=$!; read -r line; kill -TERM $pid; wait $pid'


@dataclass(frozen=True)
class Served:
    """What runs. `output` is what `modelmq up` printed until it served."""

    folder: Path
    port: int
    output: str

    @property
    def environ(self) -> dict[str, str]:
        """With the environment's programs in reach and the port in place of the default one."""
        path = f"{ROOT_BIN}{os.pathsep}{os.environ['PATH']}"
        return environ(self.port) | {"PATH": path}


ROOT_BIN = Path(sys.executable).parent


def environ(port: int) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MODELMQ_")}
    # A page shows what a reader sees who has not put the environment on the PATH.
    kept["PATH"] = os.pathsep.join(p for p in kept["PATH"].split(os.pathsep) if Path(p) != ROOT_BIN)
    return kept | {"MODELMQ_GATEWAY_PORT": str(port), "NO_COLOR": "1", "no_proxy": "127.0.0.1"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def checkout(folder: Path) -> Path:
    """A folder with all of the project's files, and what is written there written there."""
    for entry in ROOT.iterdir():
        if entry.name not in (".git", ".venv", ".modelmq", "modelmq.toml"):
            (folder / entry.name).symlink_to(entry)
    (folder / ".venv").symlink_to(sys.prefix)
    return folder


@contextmanager
def serving(folder: Path, *flags: str) -> Iterator[Served]:
    port = free_port()
    process = subprocess.Popen(
        ["sh", "-c", _UNTIL_INPUT_ENDS, "sh", ".venv/bin/modelmq", "up", *flags],
        cwd=folder,
        env=environ(port),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        text=True,
    )
    assert process.stdin
    assert process.stdout
    # Whoever waits for its lines must not wait for ever.
    late = threading.Timer(120, process.stdin.close)
    late.start()
    try:
        lines: list[str] = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("Serving after"):
                break
        else:
            pytest.fail(f"modelmq up ended:\n{''.join(lines)}")
        late.cancel()
        yield Served(folder, port, "".join(lines))
    finally:
        late.cancel()
        process.stdin.close()
        said = process.stdout.read()
        process.stdout.close()
        status = process.wait(60)
    assert status == 0, said


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The demo models, as `make up` serves them."""
    with serving(checkout(tmp_path_factory.mktemp("demo"))) as served:
        yield served


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The example models."""
    with serving(checkout(tmp_path_factory.mktemp("examples")), "--models", "examples/models") as served:
        yield served
