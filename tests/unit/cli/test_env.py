from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from modelmq.cli import env
from modelmq.errors import ConfigError
from modelmq.settings import Settings, load


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    flags = {"state_dir": str(tmp_path), "broker.vhost": "ml/dev $(touch x)", "broker.hosts": "a:1,b:2"}
    return load("", "f", {}, flags)


def secret(tmp_path: Path, text: str) -> None:
    path = tmp_path / "secrets" / "ml-client"
    path.parent.mkdir()
    path.touch(0o600)
    path.write_text(text + "\n")


def test_a_shell_gets_the_very_values(settings: Settings, tmp_path: Path) -> None:
    secret(tmp_path, "p@ss/w:rd'\"$HOME")
    script = "\n".join([*env.lines(settings), 'printf "%s\\n" "$MODELMQ_HTTP_URL" "$MODELMQ_AMQP_URL"'])
    shell = subprocess.run(["sh", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    http, amqp = shell.stdout.splitlines()
    assert http == "http://127.0.0.1:8000"
    assert amqp == "amqp://ml-client:p%40ss%2Fw%3Ard%27%22%24HOME@a:1,b:2/ml%2Fdev%20%24%28touch%20x%29"
    assert not (tmp_path / "x").exists()


def test_tls_is_said(tmp_path: Path) -> None:
    secret(tmp_path, "s")
    url = env.amqp_url(load("", "f", {}, {"state_dir": str(tmp_path), "broker.tls": True}))
    assert url == "amqps://ml-client:s@127.0.0.1:5672/ml-dev"


@pytest.mark.parametrize("mode", ["direct", "queue"])
def test_the_reply_mode_is_said_and_is_no_setting_of_later_commands(tmp_path: Path, mode: str) -> None:
    secret(tmp_path, "s")
    told = env.lines(load("", "f", {}, {"state_dir": str(tmp_path), "topology.reply_mode": mode}))
    assert f"export MODELMQ_REPLY_MODE={mode}" in told
    environ = dict(line.removeprefix("export ").split("=", 1) for line in told)
    assert load("", "f", environ, {}).topology.reply_mode == "direct"


def test_the_authority_is_told_where_there_is_one(tmp_path: Path) -> None:
    secret(tmp_path, "s")
    flags = {"state_dir": str(tmp_path), "broker.tls": True, "broker.ca_file": "tls/ca.pem"}
    assert f"export MODELMQ_AMQP_CA_FILE={Path.cwd()}/tls/ca.pem" in env.lines(load("", "f", {}, flags))
    assert not any("CA_FILE" in line for line in env.lines(load("", "f", {}, flags | {"broker.ca_file": None})))


def test_without_a_secret_it_says_what_to_do(settings: Settings) -> None:
    with pytest.raises(ConfigError, match=r"^The user ml-client has no secret in .*: run modelmq topology apply first"):
        env.lines(settings)
