from __future__ import annotations

from pathlib import Path

import pytest

from modelmq.broker.secrets import read_secret, secret_file
from modelmq.errors import ConfigError


def kept(tmp_path: Path, content: bytes, mode: int = 0o600) -> Path:
    path = tmp_path / "secret"
    path.write_bytes(content)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("content", [b"a secret", b"a secret\n", b"a secret\r\n"])
def test_the_line_of_a_file(tmp_path: Path, content: bytes) -> None:
    assert read_secret("", kept(tmp_path, content)) == "a secret"
    assert read_secret("", kept(tmp_path, content, 0o640)) == "a secret"


def test_it_is_read_anew(tmp_path: Path) -> None:
    assert read_secret("", kept(tmp_path, b"one")) == "one"
    assert read_secret("", kept(tmp_path, b"two")) == "two"


def test_itself_goes_first(tmp_path: Path) -> None:
    assert read_secret("given", tmp_path / "nowhere") == "given"


@pytest.mark.parametrize("content", [b"", b"\n", b"two\nlines", b"\xff\xfe", b"x" * 5000, b"a\0b"])
def test_what_is_no_secret(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ConfigError, match=r"must hold one line with the password\.$"):
        read_secret("", kept(tmp_path, content))


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o644])
def test_what_everybody_can_read(tmp_path: Path, mode: int) -> None:
    with pytest.raises(ConfigError, match=r"^here: everybody can read the file .*; run chmod 600"):
        read_secret("", kept(tmp_path, b"a secret", mode), setting="here")


def test_nothing_at_all(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="There is no password: set password_file"):
        read_secret("", "")
    with pytest.raises(ConfigError, match=r"cannot be read: No such file or directory\."):
        read_secret("", tmp_path / "nowhere")


def test_where_it_is() -> None:
    assert secret_file("state", "ml-gateway") == Path("state/secrets/ml-gateway")
