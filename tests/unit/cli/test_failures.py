from __future__ import annotations

import os
import subprocess
import sys

import pytest

from modelmq import errors
from modelmq.cli.failures import status_of, told


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.ConfigError("x"), 2),
        (errors.InvalidRequest("x"), 3),
        (errors.NotFound("x"), 3),
        (errors.TooLarge("x"), 3),
        (errors.Unsupported("x"), 3),
        (errors.Overloaded("x"), 4),
        (errors.Unavailable("x"), 4),
        (errors.Expired("x"), 4),
        (errors.ConnectFailed("x"), 4),
        (errors.ModelFailed("x"), 5),
        (errors.DeadLettered("x"), 5),
        (errors.NodeError("x"), 1),
        (errors.ProvisionError("x"), 1),
        (errors.ModelMQError("x"), 1),
    ],
)
def test_statuses(error: errors.ModelMQError, status: int) -> None:
    assert status_of(error) == status


def test_an_error_is_one_line_and_a_status(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, told(debug=False):
        raise errors.ConfigError("gateway.port must be a port number.")
    assert ended.value.code == 2
    assert capsys.readouterr().err == "modelmq: gateway.port must be a port number.\n"


def test_with_debug_it_is_the_error_itself() -> None:
    with pytest.raises(errors.ConfigError), told(debug=True):
        raise errors.ConfigError("x")


def test_a_bug_stays_a_bug() -> None:
    with pytest.raises(ZeroDivisionError), told(debug=False):
        _ = 1 // 0


def test_ctrl_c_is_no_traceback() -> None:
    with pytest.raises(SystemExit) as ended, told(debug=False):
        raise KeyboardInterrupt
    assert ended.value.code == 130


def test_a_reader_who_has_seen_enough_is_no_traceback() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    command = [sys.executable, "-m", "modelmq", "version"]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, env=environ, timeout=60, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, b"")
