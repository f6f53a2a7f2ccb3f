from __future__ import annotations

import stat
from pathlib import Path

import pytest

from modelmq.broker import node_record as records
from modelmq.broker.node_config import NodeFiles, Ports, files_in
from modelmq.broker.node_record import RunningRecord
from modelmq.broker.processes import ProcessId
from modelmq.errors import NodeError


@pytest.fixture
def files(tmp_path: Path) -> NodeFiles:
    files = files_in(tmp_path / "node")
    records.prepare(files)
    return files


def test_a_record_is_made_once(files: NodeFiles) -> None:
    made = records.load(files)
    assert records.load(files) == records.find_record(files) == made
    assert len(made.password) >= 32
    assert made.password not in repr(made)
    assert records.load(files_in(files.folder)) == made


def test_two_folders_share_nothing(files: NodeFiles, tmp_path: Path) -> None:
    other = files_in(tmp_path / "other")
    records.prepare(other)
    one, two = records.load(files), records.load(other)
    assert one.name != two.name
    assert one.password != two.password
    assert files.cookie.read_text() != other.cookie.read_text()


def test_only_the_owner_can_read(files: NodeFiles) -> None:
    files.folder.chmod(0o755)
    records.prepare(files)
    records.load(files)
    records.take_lock(files).release()
    for folder in (files.folder, files.data, files.logs):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in files.folder.iterdir() if path.is_file()}
    assert modes == {"node.json": 0o600, "lock": 0o600, ".erlang.cookie": 0o400}


def test_a_lost_cookie_is_replaced(files: NodeFiles) -> None:
    made = records.load(files)
    files.cookie.unlink()
    assert records.load(files) == made
    assert files.cookie.exists()


def test_what_runs(files: NodeFiles) -> None:
    running = RunningRecord("f", Ports(1, 2, 3, 4), node=ProcessId(1, 2, "boot"))
    assert records.load_running(files) is None
    records.save_running(files, running)
    assert records.load_running(files) == running
    files.running.write_text("{")
    assert records.load_running(files) is None
    records.forget_running(files)
    records.forget_running(files)


def test_a_draft_of_a_killed_process_is_in_nobodys_way(files: NodeFiles) -> None:
    records.write_private(files.conf, "one")
    assert [path.name for path in files.folder.iterdir() if path.name.endswith(".new")] == []
    records.write_private(files.conf, b"two")
    assert files.conf.read_text() == "two"


def test_one_lock_at_a_time(files: NodeFiles) -> None:
    lock = records.take_lock(files)
    with pytest.raises(NodeError, match=r"is in use by process \d+: stop that one, or use another folder\.$"):
        records.take_lock(files)
    lock.release()
    lock.release()
    records.take_lock(files).release()
