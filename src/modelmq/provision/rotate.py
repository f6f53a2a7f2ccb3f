"""Gives a service a new user and password while it runs: a second user, the switch, patience, and the end of the first.

Run by the CLI with an administrator's access. Services that read their secret from the file switch by themselves; for
others it waits. It may be interrupted anywhere and run again. Which step is next is `rotation`'s to say.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from modelmq.broker.management import Management
from modelmq.broker.management_values import ConnectionInfo, PermissionInfo, UserInfo
from modelmq.broker.secrets import Secret
from modelmq.errors import ProvisionError
from modelmq.provision.passwords import SALT_BYTES, password_hash
from modelmq.provision.rotation import Prepare, Retire, Switch, late, next_step, who
from modelmq.provision.secret_files import NEXT, OLD, Held, create, new_secret, replace

_LOOK_EVERY_S = 0.5
SETTLED_S = 2.0
"""A user that can no longer log in and has had no connection for so long has none."""


class Account(msgspec.Struct, frozen=True):
    """Whose secret is rotated: the name its users' are made of, where its secrets are, and what rotates it."""

    name: str
    folder: Path
    vhost: str
    command: str

    @property
    def path(self) -> Path:
        """What the services are given."""
        return self.folder / self.name

    def file(self, ending: str) -> Path:
        """What stands beside it while it is rotated."""
        return self.folder / f"{self.name}{ending}"

    def step(self) -> Prepare | Switch | Retire:
        """What is to be done next. Raises ConfigError for a file that cannot be used, ProvisionError without any."""
        current, coming, old = Held.read(self.folder, self.name)
        if current is None:
            raise ProvisionError(f"There is no secret {self.path}: run modelmq topology apply first.")
        return next_step(current, coming, old)


def rotate(account: Account, management: Management, tell: Callable[[str], None], timeout_s: float) -> None:
    """Until the user before is gone. Raises ConfigError, ProvisionError: then run it again, nothing is broken."""
    with _alone(account):
        switched = False
        while True:
            match account.step():
                case Prepare(user):
                    if switched:
                        return
                    create(account.file(NEXT), new_secret(user))
                case Switch(before, after):
                    _switch(account, before, after, management, tell)
                case Retire(old):  # perhaps of a rotation that was interrupted; it is not begun anew then
                    switched = True
                    _retire(account, old, management, tell, timeout_s)


def _switch(
    account: Account, before: Secret, after: Secret, management: Management, tell: Callable[[str], None]
) -> None:
    """First the user, so that nobody is given a secret that does not work yet."""
    tags, rights = _what_may(before.username, account.vhost, management)
    _put(after, tags, management)
    management.put_permission(account.vhost, msgspec.structs.replace(rights, user=after.username))
    tell(f"+ user {after.username}, with the rights of {before.username}")
    replace(account.file(OLD), before)
    with _told_as_file(account.path):
        account.file(NEXT).replace(account.path)
    tell(f"~ secret {account.path}, now of {after.username}")


def _retire(
    account: Account, old: Secret, management: Management, tell: Callable[[str], None], timeout_s: float
) -> None:
    path = account.file(OLD)
    found = {user.name: user for user in management.users()}.get(old.username)
    if found is not None:
        _wait(account, old, found, management, tell, timeout_s)
        management.delete_user(old.username)
        tell(f"- user {old.username}")
    with _told_as_file(path):
        path.unlink(missing_ok=True)


def _wait(
    account: Account,
    old: Secret,
    found: UserInfo,
    management: Management,
    tell: Callable[[str], None],
    timeout_s: float,
) -> None:
    """Until the old user has no connection and can make none. Raises ProvisionError when that takes too long."""
    end = time.monotonic() + timeout_s
    told = ""
    tags = tuple(sorted(found.tag_set))
    while True:
        connections = management.connections_of(old.username)
        if not connections:
            # Nobody may slip in between the last look and the removal.
            _put(Secret(old.username, secrets.token_urlsafe()), tags, management)
            try:
                connections = _settled(old.username, management)
            except BaseException:
                _put(old, tags, management)
                raise
            if not connections:
                return
            _put(old, tags, management)
        connections = _named(connections, account.vhost, management)
        if time.monotonic() >= end:
            sentence = late(old.username, connections, timeout_s, str(account.path), account.command)
            raise ProvisionError(sentence)
        if who(connections) != told:
            told = who(connections)
            tell(f"  waiting for {old.username}: {told}")
        time.sleep(_LOOK_EVERY_S)


def _named(connections: tuple[ConnectionInfo, ...], vhost: str, management: Management) -> tuple[ConnectionInfo, ...]:
    """With the names that clients gave themselves, in a stable order; a list that is some seconds old has those."""
    given = {each.name: each.user_provided_name for each in management.connections(vhost)}
    return tuple(
        msgspec.structs.replace(each, user_provided_name=given.get(each.name, ""))
        for each in sorted(connections, key=lambda each: each.name)
    )


def _settled(user: str, management: Management) -> tuple[ConnectionInfo, ...]:
    """The user's connections as soon as there are any; none after SETTLED_S without one."""
    end = time.monotonic() + SETTLED_S
    while time.monotonic() < end:
        connections = management.connections_of(user)
        if connections:
            return connections
        time.sleep(_LOOK_EVERY_S)
    return ()


def _what_may(user: str, vhost: str, management: Management) -> tuple[tuple[str, ...], PermissionInfo]:
    """Tags and rights that the second user gets too. Raises ProvisionError where there is no first."""
    found = {each.name: each for each in management.users()}.get(user)
    rights = {each.user: each for each in management.permissions(vhost)}.get(user) if found else None
    if found is None or rights is None:
        raise ProvisionError(
            f'The user {user} is not on the broker, or has no rights in "{vhost}": run modelmq topology apply first.'
        )
    return tuple(sorted(found.tag_set)), rights


def _put(secret: Secret, tags: tuple[str, ...], management: Management) -> None:
    management.put_user(secret.username, password_hash(secret.password, os.urandom(SALT_BYTES)), tags)


@contextlib.contextmanager
def _told_as_file(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ProvisionError(f"The secret file {path} cannot be written: {error.strerror}.") from error


@contextlib.contextmanager
def _alone(account: Account) -> Iterator[None]:
    """One at a time for an account; the lock ends with this process."""
    if not account.folder.is_dir():
        raise ProvisionError(f"There is no secret {account.path}: run modelmq topology apply first.")
    with _told_as_file(account.folder), (account.folder / ".rotating").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ProvisionError(f"Secrets in {account.folder} are being rotated already; wait for that.") from error
        yield
