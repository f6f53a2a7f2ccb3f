"""Runs of `modelmq up` from a folder of the test's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.system.up.running import Starter, Up, starter, write_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder to stand in."""
    path = tmp_path / "here"
    path.mkdir()
    return path


@pytest.fixture
def start(folder: Path) -> Iterator[Starter]:
    with starter(folder) as start:
        yield start


@pytest.fixture
def own(folder: Path, start: Starter) -> Callable[..., Up]:
    """A run that serves the model `double` of the user's own folder."""
    write_model(folder / "models", "double")

    def run(*arguments: str, **options: Any) -> Up:
        return start("--models", "models", *arguments, **options)

    return run
