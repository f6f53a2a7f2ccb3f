from __future__ import annotations

import stat
from pathlib import Path

import pytest

from modelmq.errors import ProvisionError
from modelmq.provision.private_file import write_private


def test_it_takes_the_place_of_what_was_there_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("before")
    file.chmod(0o644)
    write_private(file, b"after")
    assert (file.read_bytes(), stat.S_IMODE(file.stat().st_mode)) == (b"after", 0o600)
    assert list(tmp_path.iterdir()) == [file]


def test_one_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(ProvisionError, match=r"folder cannot be written: Is a directory\."):
        write_private(tmp_path / "folder", b"x")
    assert [each.name for each in tmp_path.iterdir()] == ["folder"]
