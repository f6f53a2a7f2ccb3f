from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from modelmq.broker import processes
from modelmq.broker.processes import ProcessId
from modelmq.supervisor import records
from modelmq.supervisor.records import Record

PATIENT = "import signal, sys; signal.pause()"
STUBBORN = "import signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); signal.pause()"
Run = Callable[[str], subprocess.Popen[bytes]]


@pytest.fixture
def run() -> Iterator[Run]:
    processes: list[subprocess.Popen[bytes]] = []

    def start(code: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True)
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def identity(process: subprocess.Popen[bytes]) -> ProcessId:
    found = processes.identify(process.pid)
    assert found is not None
    return found


def record_of(process: subprocess.Popen[bytes], name: str = "gateway") -> Record:
    return Record(name, identity(process), address="http://here")


def test_what_is_written_is_read(tmp_path: Path) -> None:
    first, second, third = (ProcessId(pid, 1, "boot") for pid in (1, 2, 3))
    for record in (Record("a", first, role="r"), Record("b", second), Record("a", third)):
        records.write(tmp_path / "run", record)
    (tmp_path / "run" / "c.json").write_text("not json")
    assert list(records.read(tmp_path / "run")) == [Record("a", third), Record("b", second)]
    records.remove(tmp_path / "run", "a")
    records.remove(tmp_path / "run", "a")
    assert [record.name for record in records.read(tmp_path / "run")] == ["b"]
    assert list(records.read(tmp_path / "nowhere")) == []


def test_end_asks_first(run: Run) -> None:
    process = run(PATIENT)
    assert records.end(record_of(process), 10)
    assert process.wait() == -signal.SIGTERM


def test_end_kills_what_does_not_listen(run: Run) -> None:
    process = run(STUBBORN)
    assert process.stdout is not None
    process.stdout.readline()
    assert records.end(record_of(process), 0.1)
    assert process.wait() == -signal.SIGKILL


def test_end_leaves_no_children(run: Run) -> None:
    child = f"import signal; {STUBBORN.replace('print(flush=True); ', '')}"
    process = run(
        f"import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', {child!r}]).pid, flush=True); {PATIENT}"
    )
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    assert records.end(record_of(process), 10)
    assert processes.identify(pid) is None


def test_somebody_elses_process_is_left_alone(run: Run, tmp_path: Path) -> None:
    process = run(PATIENT)
    records.write(tmp_path, Record("gateway", ProcessId(process.pid, 1, "an earlier boot")))
    assert records.end_all(tmp_path, 10) == []
    assert process.poll() is None
    assert list(records.read(tmp_path)) == []


def test_end_all_tells_what_still_ran(run: Run, tmp_path: Path) -> None:
    records.write(tmp_path, record_of(run(PATIENT)))
    records.write(tmp_path, Record("worker", ProcessId(2**22 - 1, 1, "gone")))
    assert records.end_all(tmp_path, 10) == ["gateway"]
    assert list(records.read(tmp_path)) == []
