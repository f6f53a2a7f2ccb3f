"""Reads a password that is given itself or as a file, anew at every call.

A file of two lines holds a user and its password, so that both change at once when the file is replaced. Services
look at it while they are connected and at each attempt, so a rotated secret takes effect without a restart. A file
that everybody on the machine can read is refused. Does not know what the password opens.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

import msgspec

from modelmq.errors import ConfigError

SECRETS_FOLDER = "secrets"
"""Within the state folder."""
_LONGEST_BYTES = 4096
_MOST_LINES = 2


class Secret(msgspec.Struct, frozen=True):
    """A password, and its user where that is told with it; else `username` is empty. Its repr hides the password."""

    username: str
    password: str

    def __repr__(self) -> str:
        return f"Secret({self.username!r}, '***')"


def secret_file(state_dir: str | Path, user: str) -> Path:
    """Where the secret of a service's user is kept; the provisioner writes it, the service reads it."""
    return Path(state_dir) / SECRETS_FOLDER / user


def read_secret(password: str, password_file: str | Path, *, setting: str = "password_file") -> Secret:
    """The password, or what its file holds: one line with it, or two with user and password. `setting` is for errors.

    Raises ConfigError when there is neither, or the file is missing, empty or readable by everybody.
    """
    if password:
        return Secret("", password)
    if not str(password_file):
        raise ConfigError(f"There is no password: set {setting} to a file that holds it.")
    try:
        with Path(password_file).open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(_LONGEST_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{setting}: the file {password_file} cannot be read: {error.strerror}.") from error
    if mode & (stat.S_IROTH | stat.S_IWOTH):
        raise ConfigError(f"{setting}: everybody can read the file {password_file}; run chmod 600 {password_file}.")
    secret = parse(content)
    if secret is None:
        raise ConfigError(
            f"{setting}: the file {password_file} must hold one line with the password, or two with user and password."
        )
    return secret


def parse(content: bytes) -> Secret | None:
    """The secret in a file's content; None for what is none."""
    try:
        lines = content.decode().rstrip("\r\n").split("\n")
    except UnicodeDecodeError:
        return None
    if len(lines) > _MOST_LINES or len(content) > _LONGEST_BYTES:
        return None
    words = [line.rstrip("\r") for line in lines]
    if not all(word and word.isprintable() for word in words):
        return None
    return Secret(words[0] if len(words) > 1 else "", words[-1])


def render(secret: Secret) -> bytes:
    """The inverse of `parse`, for what it can read."""
    user = f"{secret.username}\n" if secret.username else ""
    return f"{user}{secret.password}\n".encode()
