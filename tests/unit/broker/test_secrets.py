from __future__ import annotations

from pathlib import Path

import pytest

from modelmq.broker.secrets import Secret, parse, read_secret, render, secret_file
from modelmq.errors import ConfigError


def kept(tmp_path: Path, content: bytes, mode: int = 0o600) -> Path:
    path = tmp_path / "secret"
    path.write_bytes(content)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("content", [b"a secret", b"a secret\n", b"a secret\r\n"])
def test_the_line_of_a_file(tmp_path: Path, content: bytes) -> None:
    assert read_secret("", kept(tmp_path, content)) == Secret("", "a secret")
    assert read_secret("", kept(tmp_path, content, 0o640)) == Secret("", "a secret")


@pytest.mark.parametrize("content", [b"me\na secret", b"me\na secret\n", b"me\r\na secret\r\n"])
def test_a_user_and_its_password_in_one_file(tmp_path: Path, content: bytes) -> None:
    assert read_secret("", kept(tmp_path, content)) == Secret("me", "a secret")


@pytest.mark.parametrize("secret", [Secret("", "p:a ss"), Secret("ml-gateway~2", "p")])
def test_what_is_written_is_read(secret: Secret) -> None:
    assert parse(render(secret)) == secret


def test_a_secret_is_not_shown() -> None:
    assert "hidden" not in repr(Secret("me", "hidden"))


def test_it_is_read_anew(tmp_path: Path) -> None:
    assert read_secret("", kept(tmp_path, b"one")) == Secret("", "one")
    assert read_secret("", kept(tmp_path, b"two")) == Secret("", "two")


def test_itself_goes_first(tmp_path: Path) -> None:
    assert read_secret("given", tmp_path / "nowhere") == Secret("", "given")


@pytest.mark.parametrize("content", [b"", b"\n", b"three\nlines\nof it", b"\nword", b"\xff\xfe", b"x" * 5000, b"a\0b"])
def test_what_is_no_secret(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ConfigError, match=r"one line with the password, or two with user and password\.$"):
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
