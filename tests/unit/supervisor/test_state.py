from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from modelmq.broker.processes import ProcessId
from modelmq.errors import ModelMQError
from modelmq.supervisor.state import Running, StateDir


def test_only_its_owner_can_look_inside(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    StateDir(folder).create()
    folder.chmod(0o755)
    StateDir(folder).create()
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_file_in_its_place_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "state").touch()
    with pytest.raises(ModelMQError, match="state cannot be used"):
        StateDir(tmp_path / "state").create()


def test_one_supervisor_at_a_time(tmp_path: Path) -> None:
    with StateDir(tmp_path).owned():
        StateDir(tmp_path).announce({})
        refused = pytest.raises(ModelMQError, match=rf"already \(process {os.getpid()}\): stop it there, or choose")
        with refused, StateDir(tmp_path).owned():
            pass
    with StateDir(tmp_path).owned():
        pass


def test_what_runs_can_be_found_while_it_runs(tmp_path: Path) -> None:
    state = StateDir(tmp_path)
    assert state.running() is None
    with state.owned():
        assert state.running() is None
        state.announce({"MODELMQ_GATEWAY_PORT": "8001"})
        found = StateDir(tmp_path).running()
        assert found is not None
        assert (found.process.pid, found.settings) == (os.getpid(), {"MODELMQ_GATEWAY_PORT": "8001"})
    assert state.running() is None


def test_a_killed_supervisor_does_not_run(tmp_path: Path) -> None:
    state = StateDir(tmp_path)
    gone = Running(ProcessId(os.getpid(), 1, "an earlier boot"), {})
    (tmp_path / "supervisor.json").write_bytes(msgspec.json.encode(gone))
    assert state.running() is None
    (tmp_path / "supervisor.json").write_text("{")
    assert state.running() is None
