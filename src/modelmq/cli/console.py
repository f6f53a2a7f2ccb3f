"""What `modelmq up` prints: a calm list of steps, problems as they happen, and a summary to copy from.

The supervisor's `Progress` on a terminal or in a log file; a terminal that goes away breaks nothing.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from modelmq.cli.streams import let_go
from modelmq.supervisor.progress import Asked, Serving


class ConsoleProgress:
    """Lines on a console; the same lines whether somebody watches or not, colour only for who does."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._stopping = False

    def began(self, step: str) -> None:
        """Slow steps are told when they begin, so that nobody wonders."""
        if step == "RabbitMQ":
            self._line("…", "dim", "starting a private RabbitMQ; Ctrl-C stops everything")

    def done(self, step: str, detail: str, took_s: float) -> None:
        """One line with how long it took."""
        self._line("✓", "green", f"{step:<9} {detail}  ({took_s:.1f} s)")

    def note(self, sentence: str) -> None:
        """One line."""
        self._line("·", "dim", sentence)

    def problem(self, sentence: str) -> None:
        """One line that stands out."""
        self._line("!", "bold yellow", sentence)

    def serving(self, summary: Serving) -> None:
        """Answer first, then how to repeat it, where things are and how to stop."""
        if summary.asked is not None:
            self._asked(summary.asked)
        rows = [
            ("Models", ", ".join(summary.models)),
            ("HTTP", f"{summary.http_url}/v2"),
            ("AMQP", f'eval "$({_command("env", summary)})" sets MODELMQ_AMQP_URL, for a user that may only ask'),
            ("RabbitMQ", f"{summary.management_url} (management)"),
            ("Status", _command("status", summary)),
            ("Logs", _near(summary.logs_dir)),
            ("Stop", "Ctrl-C"),
        ]
        self._plain("")
        for name, value in rows:
            self._plain(f"  {name:<9} {value}")
        self._plain(f"\nServing after {summary.started_in_s:.1f} s.")

    def stopping(self) -> None:
        """Said once; a second Ctrl-C is allowed."""
        self._line("…", "dim", "stopping: finishing open requests (Ctrl-C again to stop at once)")

    def stopped(self) -> None:
        """The last line."""
        self._line("✓", "green", "stopped")

    def _asked(self, asked: Asked) -> None:
        truth = f" (the data set says {asked.truth})" if asked.truth else ""
        self._plain(f"\n  Asked the model {asked.model}: {asked.answer}{truth}. Ask it again:\n")
        self._plain(f"    {asked.command}")

    def _line(self, mark: str, style: str, text: str) -> None:
        # soft_wrap: what is to be copied must not be broken into lines.
        self._print(f"[{style}]{mark}[/] {escape(text)}")

    def _plain(self, text: str) -> None:
        self._print(escape(text))

    def _print(self, markup: str) -> None:
        # A terminal that is gone must not keep us from draining.
        try:
            self._console.print(markup, soft_wrap=True, highlight=False)
        except (OSError, ValueError):
            let_go(self._console.file)


def _command(name: str, summary: Serving) -> str:
    """As it works from here: by its path where it is not on the user's."""
    started = Path(sys.argv[0]).absolute()
    if shutil.which("modelmq"):
        program = ["modelmq"]
    elif started.name == "__main__.py":
        program = [_near(sys.executable), "-m", "modelmq"]
    else:
        program = [_near(str(started))]
    default = Path(summary.state_dir) == Path.cwd() / ".modelmq"
    words = [*program, name, *([] if default else ["--state-dir", _near(summary.state_dir)])]
    return shlex.join(words)


def _near(path: str) -> str:
    """Relative to where the user stands, when that is shorter."""
    relative = os.path.relpath(path)
    return relative if len(relative) < len(path) else path
