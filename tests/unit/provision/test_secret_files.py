from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from modelmq.errors import ConfigError, ProvisionError
from modelmq.provision.secret_files import ensure_secret


def test_made_once_for_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "secrets" / "user"
    made = ensure_secret(path.parent, "user")
    assert len(made) >= 32
    assert ensure_secret(path.parent, "user") == made
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [each.name for each in path.parent.iterdir()] == ["user"]
    assert ensure_secret(path.parent, "other") != made


def test_many_at_once_agree(tmp_path: Path) -> None:
    path = tmp_path / "secrets" / "user"
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(lambda _: ensure_secret(path.parent, "user"), range(40)))) == 1
    assert [each.name for each in path.parent.iterdir()] == ["user"]


def test_a_file_that_is_there_is_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "user"
    path.touch(0o600)
    with pytest.raises(ConfigError, match="must hold one line"):
        ensure_secret(tmp_path, "user")
    assert path.read_text() == ""


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises((ConfigError, ProvisionError), match="file/user"):
        ensure_secret(tmp_path / "file", "user")
