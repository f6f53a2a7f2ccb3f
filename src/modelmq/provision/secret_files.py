"""Keeps one generated password per service user in a file of its own, readable by nobody else.

A file that is there is kept, a missing one is created whole or not at all, so two provisioners at once agree on one
password. Passwords never pass through arguments or logs. Does not know the broker.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterable
from pathlib import Path

from modelmq.broker.secrets import read_secret
from modelmq.errors import ProvisionError

_PASSWORD_BYTES = 32


def ensure_secret(path: Path) -> str:
    """The password in the file, which is created (0600, its folder 0700) with a new one when missing.

    Raises ConfigError for a file that cannot be used, ProvisionError when none can be created.
    """
    if not path.exists():
        try:
            _create(path)
        except OSError as error:
            raise ProvisionError(f"The secret file {path} cannot be written: {error.strerror}.") from error
    return read_secret("", path, setting="secret").password


def known_secrets(users: Iterable[str], folder: Path) -> dict[str, str]:
    """The passwords that are there, by user; makes none. Raises ConfigError for a file that cannot be used."""
    paths = {user: folder / user for user in users}
    return {user: read_secret("", path, setting="secret").password for user, path in paths.items() if path.exists()}


def _create(path: Path) -> None:
    """Written beside its place and then linked to it: readers see the whole file, and the first writer wins."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.parent.chmod(0o700)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(_PASSWORD_BYTES) + "\n")
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink()
