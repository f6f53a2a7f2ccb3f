"""RabbitMQ 4.3 beside the system's: it is that, it leaves nothing mounted, and where it is missing the run says so."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from modelmq.broker.node import RunningNode

ROOT = Path(__file__).parents[3]
ONE_ON_BOTH = "tests/system/broker/test_management.py::test_a_wrong_password_and_an_unknown_user[4.3]"


@pytest.mark.broker
def test_it_is_another_system_with_the_same_folders(node43: RunningNode, home43: Path) -> None:
    assert node43.version.startswith("4.3.")
    # Its own Erlang, by its own root folder, under the pid that was started.
    assert Path(f"/proc/{node43.pid}/root").resolve() == home43.resolve() / "root"
    assert node43.log_file.stat().st_size > 0
    assert str(home43) not in Path("/proc/mounts").read_text()


def without_it(tmp_path: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environ = os.environ | {"MODELMQ_RABBITMQ43": str(tmp_path / "none")}
    return subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=120, check=False)


def test_where_it_is_missing_the_reason_is_a_sentence(tmp_path: Path) -> None:
    done = without_it(tmp_path, "tools/rabbitmq43.sh", "where")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.endswith(".\n")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("processes", ["0", "2"])
def test_where_it_is_missing_the_last_line_of_a_run_says_so(processes: str, tmp_path: Path) -> None:
    options = ["-q", "-n", processes, "-p", "no:cacheprovider", f"--basetemp={tmp_path / 'basetemp'}"]
    done = without_it(tmp_path, sys.executable, "-m", "pytest", ONE_ON_BOTH, *options)
    assert done.returncode == 0, done.stdout
    assert "1 skipped" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("RabbitMQ 4.3: NOT TESTED. ")
