from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from modelmq.cli.console import ConsoleProgress
from modelmq.supervisor.progress import Asked, Serving

CURL = "curl -s -H 'Content-Type: application/json' -d @.modelmq/models/digits/sample.json http://127.0.0.1:8000/v2/models/digits/infer"


def summary(here: Path, asked: Asked | None = None) -> Serving:
    return Serving(
        models=("digits", "sentiment"),
        http_url="http://127.0.0.1:8000",
        management_url="http://127.0.0.1:15672",
        state_dir=str(here / ".modelmq"),
        logs_dir=str(here / ".modelmq" / "logs"),
        started_in_s=9.87,
        asked=asked,
    )


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def printed(tell: object, width: int = 40) -> str:
    stream = io.StringIO()
    tell(ConsoleProgress(Console(file=stream, width=width, soft_wrap=True)))  # type: ignore[operator]
    return stream.getvalue()


def test_steps_are_lines_without_colour_where_nobody_watches() -> None:
    text = printed(lambda progress: progress.done("RabbitMQ", "3.10.8, a private node", 5.23))
    assert text == "✓ RabbitMQ  3.10.8, a private node  (5.2 s)\n"


def test_what_is_to_be_copied_is_not_broken_into_lines(here: Path) -> None:
    text = printed(lambda progress: progress.serving(summary(here, Asked("digits", CURL, "label: 4", "4"))))
    assert f"    {CURL}\n" in text
    assert "Asked the model digits: label: 4 (the data set says 4)." in text


def test_the_summary_says_where_everything_is_and_how_to_stop(here: Path) -> None:
    lines = printed(lambda progress: progress.serving(summary(here))).splitlines()
    shown = {line.split()[0]: line.split(maxsplit=1)[1] for line in lines if line.strip()}
    assert shown["Models"] == "digits, sentiment"
    assert shown["HTTP"] == "http://127.0.0.1:8000/v2"
    assert " env)" in shown["AMQP"]
    assert shown["Logs"] == ".modelmq/logs"
    assert shown["Stop"] == "Ctrl-C"
    assert "--state-dir" not in shown["Status"]


def test_commands_name_another_state_folder(here: Path) -> None:
    elsewhere = summary(here / "my place")
    text = printed(lambda progress: progress.serving(elsewhere))
    assert "status --state-dir 'my place/.modelmq'" in text


def test_brackets_in_a_sentence_are_not_markup() -> None:
    text = printed(lambda progress: progress.problem("models/[bold]x[/] has shape [1, 4]"))
    assert text == "! models/[bold]x[/] has shape [1, 4]\n"


def test_a_terminal_that_is_gone_breaks_nothing() -> None:
    stream = io.StringIO()
    progress = ConsoleProgress(Console(file=stream))
    stream.close()
    progress.stopping()
    progress.problem("x")
