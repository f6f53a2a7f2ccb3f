from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import msgspec
import pytest

from modelmq.broker import processes
from modelmq.broker.processes import ProcessId, parse_environ, parse_stat

Run = Callable[..., "subprocess.Popen[str]"]
PATIENT = "import signal; print(flush=True); signal.pause()"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); signal.pause()"
PARENT = f"import subprocess, sys; child = subprocess.Popen([sys.executable, '-c', {PATIENT!r}]); print(child.pid, flush=True); child.wait()"  # noqa: E501 - one program


@pytest.fixture
def run() -> Iterator[Run]:
    started: list[subprocess.Popen[str]] = []

    def start(code: str, **environ: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", code]
        environment = {**os.environ, **environ}
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def identity(pid: int) -> ProcessId:
    found = processes.identify(pid)
    assert found is not None
    return found


def test_a_name_with_spaces_and_brackets() -> None:
    fields = " ".join(map(str, range(2, 40)))
    stat = parse_stat(f"12 (a) b) (c) S {fields}")
    assert (stat.state, stat.parent, stat.started) == ("S", 2, 20)
    with pytest.raises(ValueError, match="not a stat line"):
        parse_stat("12 (x) S 1")


def test_variables() -> None:
    data = b"A=1\0MODELMQ_NODE=/a=b c\0XMODELMQ_NODE=2\0"
    assert parse_environ(data, "MODELMQ_NODE") == "/a=b c"
    assert parse_environ(data, "MODELMQ") == ""


def test_a_process_is_its_pid_and_its_start(run: Run) -> None:
    us = identity(os.getpid())
    assert processes.alive(us)
    assert not processes.alive(msgspec.structs.replace(us, started=us.started - 1))
    assert not processes.alive(msgspec.structs.replace(us, boot="another"))
    process = run("pass")
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert processes.identify(process.pid) is None  # a zombie has ended
    assert processes.identify(2**22 + 1) is None


def test_family_and_variable(run: Run) -> None:
    parent = run(PARENT, MODELMQ_TEST="/it is us")
    child = int(said(parent))
    assert [each.pid for each in processes.family(parent.pid)] == [parent.pid, child]
    assert {each.pid for each in processes.with_variable("MODELMQ_TEST", "/it is us")} == {parent.pid, child}
    assert processes.with_variable("MODELMQ_TEST", "/it is") == []
    assert processes.end([identity(child)], 10)


def test_end_asks_and_then_makes_it(run: Run) -> None:
    patient, stubborn = run(PATIENT), run(STUBBORN)
    assert [said(patient), said(stubborn)] == ["", ""]
    assert processes.end([identity(patient.pid), identity(stubborn.pid)], 0.2)
    assert (patient.wait(), stubborn.wait()) == (-signal.SIGTERM, -signal.SIGKILL)
    assert processes.end([], 1)


def test_the_successor_of_a_pid_is_left_alone(run: Run) -> None:
    innocent = run(PATIENT)
    said(innocent)
    theirs = identity(innocent.pid)
    earlier = msgspec.structs.replace(theirs, started=theirs.started - 1)
    assert processes.end([earlier], 0.1)
    assert processes.wait([earlier], 0.1) == []
    assert innocent.poll() is None


def test_wait_tells_who_stays(run: Run) -> None:
    stays, goes = run(PATIENT), run("pass")
    said(stays)
    gone = processes.identify(goes.pid)
    goes.wait()
    began = time.monotonic()
    assert processes.wait([each for each in (gone, identity(stays.pid)) if each], 0.1) == [identity(stays.pid)]
    assert time.monotonic() - began < 5
