"""Every command of every page: run against a real `modelmq up`, or, where it starts one, known to be right.

A page's commands run in its order in one shell. What a `console` block shows must come, but for numbers that differ.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path

import click
import pytest
import typer

from modelmq.cli.app import app
from tests.docs.pages import NAMES, ROOT, Command, blocks, commands, plain

# What starts something or takes minutes is not run again here; what stands for a reader's own file or value cannot be.
NOT_RUN = ("make ", "modelmq up", ".venv/bin/modelmq up", "modelmq gateway", "modelmq worker", "modelmq broker",
           ".venv/bin/python benchmarks", "python tools", "python -m modelmq.demo", "…", " my-", "DIR", "COMMAND",
           "MODEL")  # fmt: skip
MARK = "=== status"
EXAMPLES_UP = ".venv/bin/modelmq up --models examples/models"


def is_run(command: Command) -> bool:
    return not any(part in command.text if part[0] in "… DCM" else command.text.startswith(part) for part in NOT_RUN)


WITH_COMMANDS = [page for page in NAMES if any(is_run(command) for command in commands(page))]
ALL = [(page, command.text) for page in NAMES for command in commands(page)]


def run(page: str, served) -> list[tuple[Command, str, int]]:
    """Each command with its output and exit status."""
    if shutil.which("curl") is None and any("curl" in text for _, text in ALL):
        pytest.fail("curl is not installed: make test installs it")
    steps = [command for command in commands(page) if is_run(command)]
    sample = served.folder / ".modelmq" / "models" / "digits" / "sample.json"
    if sample.exists():
        shutil.copy(sample, served.folder / "request.json")
    lines = ['eval "$(.venv/bin/modelmq env)"']
    for command in steps:
        text = command.text.replace("127.0.0.1:8000", f"127.0.0.1:{served.port}")
        lines += [text, f'printf "\\n{MARK} %s\\n" $?']
    done = subprocess.run(
        ["bash", "-c", "\n".join(lines)],
        cwd=served.folder,
        env=served.environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    parts = done.stdout.split(f"\n{MARK} ")
    outputs = [parts[0], *(part.partition("\n")[2] for part in parts[1:-1])]
    statuses = [int(part.partition("\n")[0]) for part in parts[1:]]
    return list(zip(steps, outputs, statuses, strict=True))


def check(page: str, served) -> None:
    for command, output, status in run(page, served):
        assert status == 0, f"{command.text}\n{output}"
        if command.shown is not None:
            assert plain(output) == plain(command.shown), command.text


@pytest.mark.parametrize("page", [page for page in WITH_COMMANDS if page.startswith("docs/")])
def test_the_commands_of_the_documentation_do_what_it_says(page: str, demo) -> None:
    check(page, demo)


@pytest.mark.parametrize("page", [page for page in WITH_COMMANDS if not page.startswith("docs/")])
def test_the_commands_of_the_first_pages_do_what_they_say(page: str, examples) -> None:
    check(page, examples)


def shown_by_readme(command: str) -> list[str]:
    (shown,) = [each.shown for each in commands("README.md") if each.text == command]
    assert shown is not None
    return sorted(plain(shown).splitlines())


def test_make_up_prints_what_the_readme_shows(demo) -> None:
    assert shown_by_readme("make up") == sorted(plain(demo.output).splitlines())


def test_the_model_file_of_the_readme_is_the_one_it_serves() -> None:
    (shown,) = [block.text for block in blocks("README.md") if block.language == "python"]
    assert shown == (ROOT / "examples/models/sentiment/1/model.py").read_text()
    assert len(shown.splitlines()) <= 12
    assert EXAMPLES_UP in [command.text for command in commands("README.md")]


@pytest.mark.parametrize(("page", "text"), [each for each in ALL if each[1].startswith("make ")])
def test_targets_of_make_exist(page: str, text: str) -> None:
    words = shlex.split(text, comments=True)
    subprocess.run([*words, "--dry-run"], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize(
    ("page", "text"), [each for each in ALL if each[1].startswith(("modelmq ", ".venv/bin/modelmq "))]
)
def test_commands_and_flags_of_modelmq_exist(page: str, text: str) -> None:
    words = shlex.split(text.replace("COMMAND", "status"), comments=True)[1:]
    command: click.Command = typer.main.get_command(app)
    context = click.Context(command)
    while isinstance(command, click.Group):
        while words and words[0].startswith("-"):
            words = words[1:]
        name, found, words = command.resolve_command(context, words)
        assert found, f"{page}: {name}"
        command, context = found, click.Context(found, parent=context)
    command.make_context(command.name, [word for word in words if word != "--help"])


@pytest.mark.parametrize(("page", "text"), [each for each in ALL if "python" in each[1].split()[0]])
def test_scripts_exist(page: str, text: str) -> None:
    script = shlex.split(text, comments=True)[1]
    assert script == "-m" or Path(ROOT, script).is_file()
