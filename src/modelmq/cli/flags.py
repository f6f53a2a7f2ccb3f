"""The flags that many commands share, and the settings that they come to.

Stands below the commands, so that those in a file of their own need not know the others.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import typer

from modelmq.cli import config

Config = Annotated[
    Path | None, typer.Option("--config", help="Settings file; unset, $MODELMQ_CONFIG or modelmq.toml here.")
]
StateDir = Annotated[Path | None, typer.Option("--state-dir", help="Folder for the private RabbitMQ and secrets.")]
Models = Annotated[Path | None, typer.Option("--models", help="Folder with the models.")]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any setting, by its dotted key.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Delete without asking.")]
Output = Annotated[Literal["text", "json"], typer.Option("-o", "--output", help="For people or for programs.")]


def found(config_file: Path | None, pairs: list[str] | None, flags: Mapping[str, object]) -> config.Found:
    """The settings that a command works with, and which of them somebody set; flags of None count as not given."""
    plain = {key: str(value) if isinstance(value, Path) else value for key, value in flags.items()}
    return config.find(config_file, os.environ, config.flags_of(pairs or []) | _set_only(plain))


def _set_only(flags: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in flags.items() if value is not None}
