"""Reads a password that is given itself or as a file, anew at every call.

Services call it at each connection attempt, so that a rotated file takes effect without a restart. A file that
everybody on the machine can read is refused. Does not know what the password opens.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from modelmq.errors import ConfigError

SECRETS_FOLDER = "secrets"
"""Within the state folder."""
_LONGEST_BYTES = 4096


def secret_file(state_dir: str | Path, user: str) -> Path:
    """Where the secret of a service's user is kept; the provisioner writes it, the service reads it."""
    return Path(state_dir) / SECRETS_FOLDER / user


def read_secret(password: str, password_file: str | Path, *, setting: str = "password_file") -> str:
    """The password, or the content of its file without the line end. `setting` is named in errors.

    Raises ConfigError when there is neither, or the file is missing, empty or readable by everybody.
    """
    if password:
        return password
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
    try:
        secret = content.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        secret = ""
    if not secret or len(content) > _LONGEST_BYTES or not secret.isprintable():
        raise ConfigError(f"{setting}: the file {password_file} must hold one line with the password.")
    return secret
