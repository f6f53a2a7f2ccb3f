"""Keeps the generated password of each account in a file of its own, readable by nobody else.

A file that is there is kept, a missing one is created whole or not at all, so two provisioners at once agree on one
password. While an account is rotated a second file stands beside: `<account>~next` before the services are given the
new secret, `<account>~old` after. Passwords never pass through arguments or logs. Does not know the broker.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from modelmq.broker.secrets import Secret, read_secret, render
from modelmq.errors import ProvisionError
from modelmq.generations import account_of, generation_of

NEXT, OLD = "~next", "~old"
_PASSWORD_BYTES = 32


def ensure_secret(folder: Path, user: str) -> str:
    """The user's password, from a file that is created (0600, its folder 0700) with a new one when there is none.

    Raises ConfigError for a file that cannot be used, ProvisionError when none can be created.
    """
    account = account_of(user)
    for attempt in (account, f"{account}{NEXT}"):
        found = known_secrets([user], folder).get(user)
        if found is not None:
            return found
        path = folder / attempt
        if not path.exists():
            create(path, new_secret(user))
    found = known_secrets([user], folder).get(user)
    if found is None:
        raise ProvisionError(f"The secret of {user} has no place: {folder / account} and {account}{NEXT} are others'.")
    return found


def known_secrets(users: Iterable[str], folder: Path) -> dict[str, str]:
    """The passwords that are there, by user; makes none. Raises ConfigError for a file that cannot be used."""
    wanted = tuple(users)
    held = {account: Held.read(folder, account) for account in {account_of(user) for user in wanted}}
    return {
        user: secret.password for user in wanted for secret in held[account_of(user)].all if secret.username == user
    }


class Held(NamedTuple):
    """An account's secrets, with their users: what its services are given, what comes next, and what was before."""

    current: Secret | None
    next: Secret | None
    old: Secret | None

    @classmethod
    def read(cls, folder: Path, account: str) -> Held:
        """As they are. Raises ConfigError for a file that cannot be used."""
        return cls(*(_read(folder / f"{account}{ending}", account) for ending in ("", NEXT, OLD)))

    @property
    def all(self) -> tuple[Secret, ...]:
        """Those that there are; the one to use is the last but for one that comes next."""
        return tuple(secret for secret in (self.old, self.current, self.next) if secret is not None)


def new_secret(user: str) -> Secret:
    """A new password; its file names the user where that is not the account's first."""
    return Secret(user if generation_of(user) > 1 else "", secrets.token_urlsafe(_PASSWORD_BYTES))


def create(path: Path, secret: Secret) -> None:
    """Unless it is there. Written beside its place and then linked to it: readers see the whole file, the first wins.

    Raises ProvisionError.
    """
    with _draft(path, secret) as draft, contextlib.suppress(FileExistsError):
        os.link(draft, path)


def replace(path: Path, secret: Secret) -> None:
    """Whether it is there or not; readers see the one or the other. Raises ProvisionError."""
    with _draft(path, secret) as draft:
        draft.replace(path)


def _read(path: Path, account: str) -> Secret | None:
    if not path.exists():
        return None
    secret = read_secret("", path, setting="secret")
    return Secret(secret.username or account, secret.password)


@contextlib.contextmanager
def _draft(path: Path, secret: Secret) -> Iterator[Path]:
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.parent.chmod(0o700)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(render(secret))
                file.flush()
                os.fsync(file.fileno())
            yield draft
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise ProvisionError(f"The secret file {path} cannot be written: {error.strerror}.") from error
