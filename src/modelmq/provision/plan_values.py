"""What planning works with, as frozen values: the broker as it was seen, what may be done, and what is to be done.

The shells make an `Observed`, the pure files beside it turn it into the parts of a `Plan`, and `execute` carries that
out. Nothing here does I/O, and nothing here holds a password.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import msgspec

from modelmq.broker.management_values import (
    BindingInfo,
    ExchangeInfo,
    FeatureFlag,
    PermissionInfo,
    PolicyInfo,
    QueueInfo,
    UserInfo,
    VhostInfo,
)
from modelmq.topology_values import Binding, Exchange, Permission, Policy, Queue, User, Vhost

Wanted = Vhost | User | Permission | Policy | Exchange | Queue | Binding
Kind = Literal["vhost", "user", "permission", "policy", "exchange", "queue", "binding"]


class BindingKey(NamedTuple):
    """What makes a binding to a queue the same binding. `arguments` is their JSON with sorted keys."""

    source: str
    destination: str
    routing_key: str
    arguments: str

    def __str__(self) -> str:
        return f"{self.source} -> {self.destination} ({self.routing_key or 'no key'})"


def key_of(binding: Binding | BindingInfo) -> BindingKey:
    """Of a wanted one or one that is there."""
    return BindingKey(binding.source, binding.destination, binding.routing_key, arguments_text(binding.arguments))


def arguments_text(arguments: Mapping[str, Any]) -> str:
    """The same text for the same arguments, whatever their order."""
    return msgspec.json.encode(dict(arguments), order="sorted").decode()


class Owned(msgspec.Struct, frozen=True):
    """The names that are ours in one virtual host. A user's rights in it are owned with the user."""

    users: frozenset[str] = frozenset()
    policies: frozenset[str] = frozenset()
    exchanges: frozenset[str] = frozenset()
    queues: frozenset[str] = frozenset()
    bindings: frozenset[BindingKey] = frozenset()


class Observed(msgspec.Struct, frozen=True):
    """The broker's state as far as a topology is concerned; of an absent virtual host all lists are empty."""

    version: tuple[int, ...]
    admin: str
    """The user that provisions."""
    cluster: str = ""
    vhosts: tuple[VhostInfo, ...] = ()
    feature_flags: tuple[FeatureFlag, ...] = ()
    users: tuple[UserInfo, ...] = ()
    permissions: tuple[PermissionInfo, ...] = ()
    """In the virtual host."""
    elsewhere: tuple[PermissionInfo, ...] = ()
    """In all others."""
    exchanges: tuple[ExchangeInfo, ...] = ()
    queues: tuple[QueueInfo, ...] = ()
    bindings: tuple[BindingInfo, ...] = ()
    policies: tuple[PolicyInfo, ...] = ()
    recorded: Owned | None = None
    """What the last apply left as its own; None where none ever ran."""


class Allowed(msgspec.Struct, frozen=True):
    """How far a plan may go. The default only creates and changes in place."""

    remove: bool = False
    """Delete what a former topology had and this one has not, unless it is in use."""
    delete: frozenset[str] = frozenset()
    """Names that are deleted even when they are in use."""
    replace: frozenset[str] = frozenset()
    """Queues and exchanges that are deleted and made anew where they cannot be changed, with what they hold."""
    adopt: bool = False
    """Take over a virtual host that somebody else made."""
    spare: frozenset[str] = frozenset()
    """Queues that turned out to be in use when they were to be deleted."""


class Change(msgspec.Struct, frozen=True):
    """One write. `why` says what differs; it never holds a secret."""

    action: Literal["create", "update", "replace"]
    kind: Kind
    name: str
    wanted: Wanted
    why: str = ""


class Removal(msgspec.Struct, frozen=True):
    """One deletion. `by_name` is one that was asked for by this name, and is carried out whatever is in it."""

    kind: Kind
    name: str
    binding: BindingInfo | None = None
    """Of the kind binding."""
    why: str = ""
    by_name: bool = False


class Kept(msgspec.Struct, frozen=True):
    """What is ours and no longer wanted, and stays all the same, with the reason."""

    kind: Kind
    name: str
    sentence: str


class Refusal(msgspec.Struct, frozen=True):
    """Why the topology cannot be applied, with the steps that resolve it."""

    kind: str
    name: str
    sentence: str


class Stray(msgspec.Struct, frozen=True):
    """What others added to things of ours. It is told, and never touched."""

    kind: Kind
    name: str
    sentence: str


class Plan(msgspec.Struct, frozen=True):
    """All writes in the order to make them, then all deletions, and what stands in the way of making any."""

    changes: tuple[Change, ...] = ()
    removals: tuple[Removal, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    kept: tuple[Kept, ...] = ()
    strays: tuple[Stray, ...] = ()
    record_first: Owned | None = None
    """What to record as owned before the changes; None where the record already says so."""
    record_last: Owned | None = None
    """What to record as owned after the removals; None where the record says so by then."""

    @property
    def empty(self) -> bool:
        """Whether there is nothing to write or delete."""
        return not self.changes and not self.removals
