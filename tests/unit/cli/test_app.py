from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from modelmq.cli.app import app

COMMANDS = (
    ["up"],
    ["gateway"],
    ["worker"],
    ["infer"],
    ["status"],
    ["env"],
    ["topology", "plan"],
    ["topology", "apply"],
    ["topology", "drift"],
    ["topology", "destroy"],
    ["topology", "render"],
    ["broker", "start"],
    ["broker", "stop"],
    ["version"],
)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_explains_itself(command: list[str]) -> None:
    ran = CliRunner().invoke(app, [*command, "--help"])
    assert ran.exit_code == 0
    assert "Usage:" in ran.stdout


def test_the_version() -> None:
    ran = CliRunner().invoke(app, ["version"])
    assert ran.exit_code == 0
    assert ran.stdout.startswith("modelmq 0.")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["up", "--set", "gateway.prot=1"], "gateway.port"),
        (["up", "--port", "70000"], "gateway.port must be a port number from 0 to 65535"),
        (["up", "--config", "nowhere.toml"], "The settings file nowhere.toml does not exist."),
        (["worker", "--role", "a b"], "worker.role"),
        (["env"], "run modelmq topology apply first"),
        (["topology", "apply", "--models", "nowhere"], 'models_dir "nowhere" has no model'),
        (["infer", "digits"], "--data"),
    ],
)
def test_a_wrong_setting_is_one_sentence_and_status_2(arguments: list[str], words: str) -> None:
    ran = CliRunner().invoke(app, arguments)
    assert ran.exit_code == 2
    assert words in ran.stderr
    assert ran.stderr.splitlines()[-1].startswith("modelmq: ")
    assert "Traceback" not in ran.output


@pytest.mark.parametrize("command", ["plan", "drift"])
@pytest.mark.parametrize("arguments", [["--models", "nowhere"], ["--set", "topology.evironment=x"], ["--bogus"]])
def test_where_2_means_changes_an_error_is_1(command: str, arguments: list[str]) -> None:
    ran = CliRunner().invoke(app, ["topology", command, *arguments])
    assert ran.exit_code == 1
    assert ran.stderr
    assert "Traceback" not in ran.output


def test_a_kept_plan_says_itself_what_is_done() -> None:
    ran = CliRunner().invoke(app, ["topology", "apply", "kept.json", "--delete", "q"])
    assert (ran.exit_code, ran.stderr.splitlines()[-1][:40]) == (2, "modelmq: A kept plan says what is done: ")


def test_debug_shows_the_error_itself() -> None:
    ran = CliRunner().invoke(app, ["--debug", "env"])
    assert type(ran.exception).__name__ == "ConfigError"


def test_a_flag_that_is_none_is_refused_by_the_parser() -> None:
    assert CliRunner().invoke(app, ["up", "--prot", "1"]).exit_code == 2
    assert CliRunner().invoke(app, ["status", "-o", "yaml"]).exit_code == 2
