"""What the next step of a rotation is, and what is told of those who have not switched.

Pure: the secrets that are there and the connections that are open come in, a step or a sentence goes out. A rotation
keeps all it knows in the secrets folder, so one that was interrupted anywhere goes on from there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from modelmq.broker.management_values import ConnectionInfo
from modelmq.broker.secrets import Secret
from modelmq.generations import next_user

_MOST_SHOWN = 3


class Prepare(NamedTuple):
    """Make a secret for this user, the next one."""

    user: str


class Switch(NamedTuple):
    """Make the next user, with the rights of the one before, and give its secret to the services."""

    before: Secret
    after: Secret


class Retire(NamedTuple):
    """Wait until nothing uses the one before, and remove it."""

    old: Secret


def next_step(current: Secret, coming: Secret | None, old: Secret | None) -> Prepare | Switch | Retire:
    """For what the services are given, what they will be given next, and what they were given before."""
    # Between the two writes of a switch the old secret is still the current one as well.
    if old is not None and old != current:
        return Retire(old)
    return Prepare(next_user(current.username)) if coming is None else Switch(current, coming)


def who(connections: Sequence[ConnectionInfo]) -> str:
    """These connections in words, a few of them by name."""
    shown = [f"{each.user_provided_name or 'a client without a name'} ({each.name})" for each in connections]
    more = f", and {len(shown) - _MOST_SHOWN} more" if len(shown) > _MOST_SHOWN else ""
    return ", ".join(shown[:_MOST_SHOWN]) + more


def late(user: str, connections: Sequence[ConnectionInfo], timeout_s: float, path: str, command: str) -> str:
    """The sentence for services that did not switch in time."""
    them = "1 connection" if len(connections) == 1 else f"{len(connections)} connections"
    return (
        f"After {timeout_s:g} s {user} still has {them}: {who(connections)}; give that service the secret in {path} "
        f"(or restart it, where its secret comes from the environment), then run {command} again."
    )
