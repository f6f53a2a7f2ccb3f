"""The state folder of one installation: where things are in it, who runs from it, and what runs.

Only its owner can look inside. One supervisor at a time holds it; other commands read from it where that one is to be
found. Holds no secrets itself and starts nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from modelmq.broker import processes
from modelmq.broker.processes import ProcessId
from modelmq.errors import ModelMQError


class Running(msgspec.Struct, frozen=True):
    """What a supervisor tells other commands about itself. `settings` are its own as variables, without any secret."""

    process: ProcessId
    settings: dict[str, str]


class StateDir:
    """Paths within the folder; all absolute, so that services may run anywhere."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).absolute()
        self.node = self.path / "node"
        self.models = self.path / "models"
        self.logs = self.path / "logs"
        self.run = self.path / "run"
        self.questions = self.path / "questions"
        self._supervisor = self.path / "supervisor.json"

    def create(self) -> None:
        """0700, also when it was there. Raises ModelMQError."""
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.path.chmod(0o700)
        except OSError as error:
            raise ModelMQError(f"The state folder {self.path} cannot be used: {error.strerror}.") from error

    @contextlib.contextmanager
    def owned(self) -> Iterator[None]:
        """Held until the block, or this process, ends. Raises ModelMQError when somebody else holds it."""
        self.create()
        with (self.path / "lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                holder = self.running()
                who = f" (process {holder.process.pid})" if holder else ""
                raise ModelMQError(
                    f"ModelMQ runs from {self.path} already{who}: stop it there, or choose another --state-dir."
                ) from error
            try:
                yield
            finally:
                self._supervisor.unlink(missing_ok=True)

    def announce(self, settings: Mapping[str, str]) -> None:
        """Lets other commands find what this process runs, or is about to."""
        process = processes.identify(os.getpid())
        if process is None:  # no /proc to be found by
            return
        running = Running(process, dict(settings))
        draft = self._supervisor.with_suffix(".draft")
        draft.write_bytes(msgspec.json.encode(running))
        draft.replace(self._supervisor)

    def running(self) -> Running | None:
        """The supervisor that runs from here now; None where there is none, or it was killed."""
        try:
            running = msgspec.json.decode(self._supervisor.read_bytes(), type=Running)
        except (OSError, msgspec.DecodeError):
            return None
        return running if processes.alive(running.process) else None
