"""What is wrong is one clear sentence, and nothing is left running."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.system.up.running import Starter, Up, write_model


def refused(up: Up, status: int = 1) -> str:
    """The last line, of an end with this status."""
    assert up.ended() == status, up.text
    assert up.left() == []
    assert "Traceback" not in up.text
    return up.text.splitlines()[-1]


def test_a_port_that_is_taken(start: Starter) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        up = start(port=str(port))
        assert refused(up) == (
            f"modelmq: Port {port} of 127.0.0.1 is taken by another program: stop that one, or choose another with"
            " --port."
        )
    assert len(up.text.splitlines()) == 1


def test_rabbitmq_that_is_not_there(start: Starter, folder: Path) -> None:
    up = start(environ={"RABBITMQ_HOME": str(folder)})
    assert refused(up).startswith(f"modelmq: RABBITMQ_HOME is {folder}, but there is no {folder}/sbin/rabbitmq-server")


def test_rabbitmq_that_is_not_installed(start: Starter, folder: Path) -> None:
    # As `locate` finds it on a machine without the package; a real one is out of a test's reach.
    hidden = (
        "from modelmq.broker import install; import pathlib; install.locate.__kwdefaults__.update("
        "roots=(pathlib.Path('/nowhere'),), system_path='/nowhere')"
    )
    (folder / "sitecustomize.py").write_text(hidden + "\n")
    (folder / "bin").mkdir()
    up = start(environ={"PYTHONPATH": str(folder), "PATH": str(folder / "bin")})
    assert refused(up).startswith("modelmq: RabbitMQ is not installed: install the package rabbitmq-server")


def test_a_folder_without_models(start: Starter, folder: Path) -> None:
    (folder / "models").mkdir()
    up = start("--models", "models")
    assert refused(up) == (
        f"modelmq: There is no model to serve in {folder}/models; it must hold <model>/<version>/<model file>."
    )
    assert "RabbitMQ" not in up.text


def test_only_models_that_do_not_load(start: Starter, folder: Path) -> None:
    write_model(folder / "models", "broken", "raise RuntimeError('no weights here')")
    up = start("--models", "models")
    assert "can be served; the logs are in" in refused(up)
    assert "no weights here" in up.text
    assert str(folder / "models/broken/1/model.py") in up.text


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("[gateway]\nprot = 9000\n", 'modelmq.toml, line 2: unknown key "prot" in [gateway]; did you mean "port"?'),
        ("\n[gateway]\nport = 'x'\n", "modelmq.toml, line 3: gateway.port must be a port number from 0 to 65535"),
        ("[gatway]\nport = 1\n", "modelmq.toml, line 1: there is no section [gatway]; did you mean [gateway]?"),
        ("[gateway\n", "modelmq.toml, line 1: this is not valid TOML"),
    ],
)
def test_a_setting_that_is_wrong(toml: str, words: str, start: Starter, folder: Path) -> None:
    (folder / "modelmq.toml").write_text(toml)
    assert words in refused(start(), status=2)


def test_a_variable_and_a_flag_that_are_wrong(start: Starter) -> None:
    line = refused(start(environ={"MODELMQ_GATEWAY_PROT": "1"}), status=2)
    assert "environment variable MODELMQ_GATEWAY_PROT is not a setting; did you mean MODELMQ_GATEWAY_PORT?" in line
    assert "gateway.drain_s" in refused(start("--set", "gateway.drian_s=1"), status=2)


def test_a_role_with_a_model_that_is_not_there(own: Callable[..., Up]) -> None:
    words = refused(own("--set", "topology.roles=fast=double,nosuch"), status=2)
    assert 'role "fast" names the unknown model "nosuch"; known are: double.' in words


def test_a_state_folder_that_cannot_be_used(start: Starter, folder: Path) -> None:
    (folder / "file").touch()
    up = start("--state-dir", "file")
    assert "The state folder" in refused(up)
    assert os.path.isfile(folder / "file")
