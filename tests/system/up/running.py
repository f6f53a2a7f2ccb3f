"""`modelmq up` as a process of its own on a terminal, and every process that it leads to."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import secrets
import select
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import httpx
import psutil

from modelmq.broker import node
from modelmq.broker.node_config import OWNER_VARIABLE
from modelmq.broker.processes import ProcessId, with_variable
from modelmq.supervisor import records
from modelmq.supervisor.records import Record

PATIENCE_S = 120.0
DRIFT = re.compile(r"\x1b\[[0-9;]*m")
_MARK = "UP_TEST_MARK"
# Makes its standard input the terminal of a session of its own, as a login does, then becomes the command.
_ON_TERMINAL = "import os, sys; os.login_tty(0); os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"

DOUBLE = """
    class Double:
        inputs = {"x": ("FP64", [-1])}
        outputs = {"y": ("FP64", [-1])}

        def predict(self, batch):
            return {"y": batch["x"] * 2}
"""
SLOW = DOUBLE.replace(
    "def predict(self, batch):", "def predict(self, batch):\n            import time; time.sleep(1.0)"
)
HALF = '{"inputs": [{"name": "x", "datatype": "FP64", "shape": [1], "data": [21.0]}]}'


def write_model(models: Path, name: str, code: str = DOUBLE, settings: str = "") -> None:
    """A Python model of version 1."""
    folder = models / name / "1"
    folder.mkdir(parents=True)
    (folder / "model.py").write_text(textwrap.dedent(code))
    if settings:
        (models / name / "model.toml").write_text(settings)


class Up:
    """One run. `text` is what it printed so far, without colours; all lines end as on a terminal."""

    def __init__(self, folder: Path, *arguments: str, tty: bool, environ: Mapping[str, str]) -> None:
        self.folder = folder
        self.state = folder / ".modelmq"
        self.text = ""
        self._mark = secrets.token_hex(8)
        self._news = threading.Condition()
        self._closed = False
        self._hung_up = threading.Event()
        command = ["-m", "modelmq", "up", *arguments]
        environ = {**plain_environ(), _MARK: self._mark, **environ}
        if tty:
            self._terminal, theirs = pty.openpty()
            head = [sys.executable, "-c", _ON_TERMINAL]
            self._process = subprocess.Popen(
                [*head, *command], cwd=folder, stdin=theirs, stdout=theirs, stderr=theirs, env=environ
            )
        else:
            self._terminal, theirs = os.pipe()
            self._process = subprocess.Popen(
                [sys.executable, *command],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=theirs,
                stderr=theirs,
                env=environ,
                start_new_session=True,
            )
        os.close(theirs)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def _read(self) -> None:
        # A terminal nobody holds any more is an error to read from, a pipe is at its end.
        with contextlib.suppress(OSError):
            # A read that waits would keep the terminal open after it is closed.
            while not self._hung_up.is_set():
                if not select.select([self._terminal], [], [], 0.05)[0]:
                    continue
                data = os.read(self._terminal, 65536)
                if not data:
                    break
                with self._news:
                    self.text += DRIFT.sub("", data.decode("utf-8", "replace")).replace("\r\n", "\n")
                    self._news.notify_all()
        with self._news:
            self._closed = True
            self._news.notify_all()

    def until(self, words: str) -> str:
        """What was printed, once the words are among it."""
        with self._news:
            assert self._news.wait_for(lambda: words in self.text or self._closed, PATIENCE_S), self.text
            assert words in self.text, self.text
            return self.text

    def until_serving(self) -> Up:
        self.until("Serving after")
        return self

    @property
    def url(self) -> str:
        """The gateway's, as the summary says."""
        found = re.search(r"HTTP +(\S+)/v2\n", self.text)
        assert found, self.text
        return found[1]

    def interrupt(self) -> None:
        """Ctrl-C: the terminal tells the foreground group."""
        os.write(self._terminal, b"\x03")

    def hang_up(self) -> None:
        """The terminal is closed."""
        self._hung_up.set()
        self._reader.join()
        os.close(self._terminal)

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def ended(self) -> int:
        """The exit status, once all is printed."""
        status = self._process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        return status

    def stopped(self) -> None:
        """Ends by SIGTERM as it should, and leaves nothing."""
        self.signal(signal.SIGTERM)
        assert self.ended() == 0, self.text
        assert self.left() == []

    def left(self) -> list[ProcessId]:
        """Every process this run led to that still runs: services and models by our mark, RabbitMQ's by its folder."""
        return [*with_variable(_MARK, self._mark), *with_variable(OWNER_VARIABLE, str(self.state / "node"))]

    def ask(self, model: str = "double", **headers: str) -> httpx.Response:
        return httpx.post(
            f"{self.url}/v2/models/{model}/infer",
            content=HALF,
            headers={"content-type": "application/json", **headers},
            timeout=PATIENCE_S,
            verify=False,
            trust_env=False,
        )

    def record(self, name: str, other_than: int = 0) -> Record:
        """The service's process, once it is on record as another one than that of a known pid."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            for record in records.read(self.state / "run"):
                if record.name == name and record.process.pid != other_than:
                    return record
            time.sleep(0.02)
        raise AssertionError(f"there is no {name}: {self.text}")

    def command(self, *arguments: str, status: int = 0) -> str:
        """Another `modelmq` from the same folder; what it printed."""
        done = subprocess.run(
            [sys.executable, "-m", "modelmq", *arguments],
            cwd=self.folder,
            env=plain_environ(),
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == status, (done.returncode, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        return done.stdout + done.stderr

    def end_all(self) -> None:
        """Whatever happened: nothing may be left for the next test."""
        for pid in [self._process.pid, *(process.pid for process in self.left())]:
            with contextlib.suppress(psutil.NoSuchProcess):
                psutil.Process(pid).kill()
        self._process.wait()
        self._reader.join(10)
        if not self._hung_up.is_set():
            os.close(self._terminal)
            self._hung_up.set()


Starter = Callable[..., Up]


def plain_environ() -> dict[str, str]:
    """Ours without anything that sets ModelMQ up, or writes at once what would be lost in a buffer."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("MODELMQ_") and name != "PYTHONUNBUFFERED"
    }


@contextlib.contextmanager
def starter(folder: Path) -> Iterator[Starter]:
    """Starts runs from one folder after another; what still runs is ended."""
    runs: list[Up] = []

    def start(*arguments: str, tty: bool = False, port: str = "0", environ: Mapping[str, str] | None = None) -> Up:
        run = Up(folder, "--port", port, *arguments, tty=tty, environ=environ or {})
        runs.append(run)
        return run

    try:
        yield start
    finally:
        for run in runs:
            run.end_all()
        for state in {run.state for run in runs}:
            node.stop(state / "node")
