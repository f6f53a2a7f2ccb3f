from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

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


def record_of(process: subprocess.Popen[bytes], name: str = "gateway") -> Record:
    return Record(name, process.pid, records.started(process.pid), address="http://here")


def test_what_is_written_is_read(tmp_path: Path) -> None:
    records.write(tmp_path / "run", Record("a", 1, "x", role="r"))
    records.write(tmp_path / "run", Record("b", 2, "y"))
    records.write(tmp_path / "run", Record("a", 3, "z"))
    (tmp_path / "run" / "c.json").write_text("not json")
    assert list(records.read(tmp_path / "run")) == [Record("a", 3, "z"), Record("b", 2, "y")]
    records.remove(tmp_path / "run", "a")
    records.remove(tmp_path / "run", "a")
    assert [record.name for record in records.read(tmp_path / "run")] == ["b"]
    assert list(records.read(tmp_path / "nowhere")) == []


def test_a_process_is_known_by_pid_and_start(run: Run) -> None:
    process = run(PATIENT)
    record = record_of(process)
    assert records.alive(record)
    assert not records.alive(Record("x", process.pid, "another start"))
    process.kill()
    process.wait()
    assert not records.alive(record)


def test_a_zombie_is_not_alive(run: Run) -> None:
    process = run(PATIENT)
    record = record_of(process)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert not records.alive(record)


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


def test_somebody_elses_process_is_left_alone(run: Run, tmp_path: Path) -> None:
    process = run(PATIENT)
    records.write(tmp_path, Record("gateway", process.pid, "an earlier start"))
    assert records.end_all(tmp_path, 10) == []
    assert process.poll() is None
    assert list(records.read(tmp_path)) == []


def test_end_all_tells_what_still_ran(run: Run, tmp_path: Path) -> None:
    records.write(tmp_path, record_of(run(PATIENT)))
    records.write(tmp_path, Record("worker", 2**22 - 1, "gone"))
    assert records.end_all(tmp_path, 10) == ["gateway"]
    assert list(records.read(tmp_path)) == []
