from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from modelmq.demo import folder


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo models, built once; read only."""
    directory = tmp_path_factory.mktemp("demo")
    assert folder.write(directory) == folder.MODELS
    return directory


@pytest.fixture
def models(built: Path, tmp_path: Path) -> Path:
    """A copy of the demo models to be changed."""
    return Path(shutil.copytree(built, tmp_path / "models"))
