"""What a run of everything tells the person who started it: a port, and the values that go through it.

The supervisor calls it, the CLI prints. Nothing here decides anything, and an implementation must not raise.
"""

from __future__ import annotations

from typing import Protocol

import msgspec


class Asked(msgspec.Struct, frozen=True):
    """The one question that was asked, and its answer. `truth` is what the data set says, empty where it is silent."""

    model: str
    command: str
    """A shell line that asks it again."""
    answer: str
    truth: str = ""


class Serving(msgspec.Struct, frozen=True):
    """Everything runs. `models` are those that answer."""

    models: tuple[str, ...]
    http_url: str
    management_url: str
    state_dir: str
    logs_dir: str
    started_in_s: float
    asked: Asked | None


class Progress(Protocol):
    """Told in the order in which things happen."""

    def began(self, step: str) -> None:
        """This step works now; several may at one time."""
        ...

    def done(self, step: str, detail: str, took_s: float) -> None:
        """This step is finished."""
        ...

    def note(self, sentence: str) -> None:
        """Something worth knowing."""
        ...

    def problem(self, sentence: str) -> None:
        """Something is wrong, and the rest goes on."""
        ...

    def serving(self, summary: Serving) -> None:
        """Everything is up."""
        ...

    def stopping(self) -> None:
        """Told to stop; draining begins."""
        ...
