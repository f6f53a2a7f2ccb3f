"""What one run of everything knows: what was asked for, and what came of it so far.

Filled in by the steps, one after another; each reads only what earlier ones left.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import msgspec

from modelmq.runtimes import Catalog
from modelmq.settings import Settings
from modelmq.supervisor import private_node
from modelmq.supervisor.addresses import http_url
from modelmq.supervisor.kept_node import KeptNode
from modelmq.supervisor.progress import Asked, Progress
from modelmq.supervisor.state import StateDir
from modelmq.supervisor.tree import Tree


class UpOptions(msgspec.Struct, frozen=True):
    """What was asked for. Without `own_models` the demo's are written and served."""

    settings: Settings
    own_models: bool
    workers: int
    environ: Mapping[str, str]
    """What services inherit, apart from settings."""


class Run:
    """The state of one run."""

    def __init__(self, options: UpOptions, progress: Progress, tree: Tree) -> None:
        self.options = options
        self.progress = progress
        self.tree = tree
        self.began_at = time.monotonic()
        self.state = StateDir(options.settings.state_dir)
        folder = Path(options.settings.models_dir).absolute() if options.own_models else self.state.models
        self.models_dir = folder
        # Absolute, because services and later commands may run in other folders.
        self.settings = msgspec.structs.replace(
            options.settings, models_dir=str(folder), state_dir=str(self.state.path)
        )
        self.node = KeptNode(private_node.spec(self.state, options.settings), progress.problem)
        self.catalog = Catalog((), ())
        self.ready_models: tuple[str, ...] = ()
        self.asked: Asked | None = None

    @property
    def http_url(self) -> str:
        """Where the gateway is reached from this machine."""
        return http_url(self.settings)
