"""A copy of deploy/pulumi, and Pulumi's engine that runs it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
_LONGEST_S = 120
PASSPHRASE = "a passphrase of the tests"
_BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Done:
    """A command that ended."""

    status: int
    output: str

    def __contains__(self, text: str) -> bool:
        return text in self.output


@dataclass(frozen=True)
class Program:
    """A copy of deploy/pulumi with a state and a home of its own. Commands run in it as in a reader's shell."""

    path: Path
    home: Path
    engine: Path
    checkpoints: bool = False
    """The state is written as users have it, twice for each of a hundred resources; else once a command."""

    @classmethod
    def copy(cls, path: Path, home: Path, engine: Path, *, checkpoints: bool = False) -> Program:
        shutil.copytree(ROOT / "deploy/pulumi", path)
        (path.parent / "backend").mkdir()
        return cls(path, home, engine, checkpoints)

    def sh(self, command: str, *, says: str = "", status: int | None = 0) -> Done:
        """One line in a shell. `says` is typed. `status` is what it must end with, None for anything."""
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.path,
            env=self.variables,
            input=says,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_LONGEST_S,
            check=False,
        )
        assert status is None or done.returncode == status, f"{command}\n{done.stdout}"
        return Done(done.returncode, done.stdout)

    def pulumi(self, *words: str, status: int | None = 0) -> Done:
        """One command of Pulumi that asks nothing."""
        return self.sh(f"pulumi {' '.join(words)} --non-interactive", status=status)

    def config(self, key: str, value: object = None) -> None:
        """Sets a key of the stack's config, or removes it."""
        text = value if isinstance(value, str) else json.dumps(value)
        self.sh(f"pulumi config rm {key}" if value is None else f"pulumi config set {key} '{text}'")

    def outputs(self) -> dict[str, Any]:
        """Of the stack, secrets in clear."""
        return dict(json.loads(self.sh("pulumi stack output --json --show-secrets").output))

    def state(self) -> str:
        """As it lies on the disk."""
        return "".join(
            each.read_text() for each in sorted((self.path.parent / "backend").rglob("*.json")) if each.is_file()
        )

    @property
    def variables(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("MODELMQ_", "PULUMI_"))}
        once = {} if self.checkpoints else {"PULUMI_EXPERIMENTAL": "true", "PULUMI_SKIP_CHECKPOINTS": "true"}
        return kept | {
            **once,
            "PATH": os.pathsep.join((str(self.engine), str(_BIN), os.environ["PATH"])),
            "NO_COLOR": "1",
            "PULUMI_BACKEND_URL": f"file://{self.path.parent / 'backend'}",
            "PULUMI_CONFIG_PASSPHRASE": PASSPHRASE,
            "PULUMI_HOME": str(self.home),
            "PULUMI_SKIP_UPDATE_CHECK": "true",
            # Only the provider that is in the home: nothing is fetched, and nothing that lies on the PATH is taken.
            "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
            "PULUMI_IGNORE_AMBIENT_PLUGINS": "true",
        }
