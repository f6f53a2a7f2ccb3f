"""Compares what stands on the broker with the Topology and lists the writes that make them equal.

Pure: the observed state, the wanted value and the secrets come in, changes and refusals go out. Only creates and
changes in place; nothing is ever deleted or replaced, what can only be replaced is refused with the steps to take.
Objects that the Topology does not name are left alone. Does not know how changes are carried out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

import msgspec

from modelmq.broker.management_values import (
    BindingInfo,
    ExchangeInfo,
    FeatureFlag,
    PermissionInfo,
    PolicyInfo,
    QueueInfo,
    UserInfo,
)
from modelmq.provision.passwords import matches
from modelmq.topology_values import Binding, Exchange, Permission, Policy, Queue, Topology, User, Vhost

Wanted = Vhost | User | Permission | Policy | Exchange | Queue | Binding

OLDEST_BROKER = (3, 10)
# At-least-once dead-lettering needs both; newer brokers no longer list flags that are always on.
_NEEDED_FLAGS = ("quorum_queue", "stream_queue")


class Observed(msgspec.Struct, frozen=True):
    """The broker's state as far as a topology is concerned; of an absent virtual host all lists are empty."""

    version: tuple[int, ...]
    admin: str
    """The user that provisions."""
    vhosts: frozenset[str] = frozenset()
    feature_flags: tuple[FeatureFlag, ...] = ()
    users: tuple[UserInfo, ...] = ()
    permissions: tuple[PermissionInfo, ...] = ()
    exchanges: tuple[ExchangeInfo, ...] = ()
    queues: tuple[QueueInfo, ...] = ()
    bindings: tuple[BindingInfo, ...] = ()
    policies: tuple[PolicyInfo, ...] = ()


class Change(msgspec.Struct, frozen=True):
    """One write. `why` says what differs; it never holds a secret."""

    action: Literal["create", "update"]
    kind: str
    name: str
    wanted: Wanted
    why: str = ""


class Refusal(msgspec.Struct, frozen=True):
    """Why the topology cannot be applied, with the steps that resolve it."""

    kind: str
    name: str
    sentence: str


class Plan(msgspec.Struct, frozen=True):
    """All writes in the order to make them, and what stands in the way of making any."""

    changes: tuple[Change, ...]
    refusals: tuple[Refusal, ...]


def plan(topology: Topology, observed: Observed, passwords: Mapping[str, str]) -> Plan:
    """The writes that make the broker equal to the topology. `passwords` holds every user's by name."""
    changes = (
        *_vhost(topology, observed),
        *_users(topology, observed, passwords),
        *_permissions(topology, observed),
        *_policies(topology, observed),
        *_missing("exchange", topology.exchanges, {exchange.name for exchange in observed.exchanges}),
        *_missing("queue", topology.queues, {queue.name for queue in observed.queues}),
        *_bindings(topology, observed),
    )
    refusals = (
        *_unfit_broker(topology, observed),
        *_unfit_exchanges(topology, observed),
        *_unfit_queues(topology, observed),
    )
    return Plan(changes, refusals)


def _vhost(topology: Topology, observed: Observed) -> Iterator[Change]:
    if topology.vhost.name not in observed.vhosts:
        yield Change("create", "vhost", topology.vhost.name, topology.vhost)


def _users(topology: Topology, observed: Observed, passwords: Mapping[str, str]) -> Iterator[Change]:
    there = {user.name: user for user in observed.users}
    for user in topology.users:
        found = there.get(user.name)
        if found is None:
            yield Change("create", "user", user.name, user)
            continue
        differs = []
        if found.tag_set != frozenset(user.tags):
            differs.append(f"tags {_listed(found.tag_set)} -> {_listed(user.tags)}")
        if not matches(passwords[user.name], found.password_hash, found.hashing_algorithm):
            differs.append("password")
        if differs:
            yield Change("update", "user", user.name, user, ", ".join(differs))


def _permissions(topology: Topology, observed: Observed) -> Iterator[Change]:
    there = {permission.user: permission for permission in observed.permissions}
    # RabbitMQ gives them to the creator of a virtual host, but after creating it, and somebody else may have done so.
    if observed.admin not in there:
        rights = Permission(observed.admin, ".*", ".*", ".*")
        yield Change("create", "permission", observed.admin, rights, "the administrator declares queues")
    for wanted in topology.permissions:
        found = there.get(wanted.user)
        if found is None:
            yield Change("create", "permission", wanted.user, wanted)
        elif differs := _differences(found, wanted, ("configure", "write", "read")):
            yield Change("update", "permission", wanted.user, wanted, differs)


def _policies(topology: Topology, observed: Observed) -> Iterator[Change]:
    there = {policy.name: policy for policy in observed.policies}
    for wanted in topology.policies:
        found = there.get(wanted.name)
        if found is None:
            yield Change("create", "policy", wanted.name, wanted)
        elif differs := _policy_differences(found, wanted):
            yield Change("update", "policy", wanted.name, wanted, differs)


def _policy_differences(found: PolicyInfo, wanted: Policy) -> str:
    parts = [_differences(found, wanted, ("pattern", "apply_to", "priority"))]
    for key in sorted(found.definition.keys() | wanted.definition.keys()):
        before, after = found.definition.get(key, "unset"), wanted.definition.get(key, "unset")
        if before != after:
            parts.append(f"{key} {before} -> {after}")
    return ", ".join(filter(None, parts))


def _missing(kind: str, wanted: Iterable[Exchange | Queue], there: set[str]) -> Iterator[Change]:
    for each in wanted:
        if each.name not in there:
            yield Change("create", kind, each.name, each)


def _bindings(topology: Topology, observed: Observed) -> Iterator[Change]:
    there = {
        (found.source, found.destination, found.routing_key, _frozen(found.arguments))
        for found in observed.bindings
        if found.destination_type == "queue"
    }
    for wanted in topology.bindings:
        if (wanted.source, wanted.destination, wanted.routing_key, _frozen(wanted.arguments)) not in there:
            name = f"{wanted.source} -> {wanted.destination} ({wanted.routing_key or 'no key'})"
            yield Change("create", "binding", name, wanted)


def _unfit_broker(topology: Topology, observed: Observed) -> Iterator[Refusal]:
    if observed.version < OLDEST_BROKER:
        version = ".".join(map(str, observed.version))
        yield Refusal("broker", version, f"RabbitMQ {version} is too old: ModelMQ needs 3.10 or later.")
    if not any(queue.type == "quorum" for queue in topology.queues):
        return
    for flag in observed.feature_flags:
        if flag.name in _NEEDED_FLAGS and flag.state != "enabled":
            sentence = (
                f"Dead letters of quorum queues are safe only with the feature flag {flag.name}, which is off: "
                f"run rabbitmqctl enable_feature_flag {flag.name} and apply again."
            )
            yield Refusal("broker", flag.name, sentence)


def _unfit_exchanges(topology: Topology, observed: Observed) -> Iterator[Refusal]:
    there = {exchange.name: exchange for exchange in observed.exchanges}
    for wanted in topology.exchanges:
        found = there.get(wanted.name)
        if found is None:
            continue
        before = {
            "type": found.type,
            "durable": found.durable,
            "auto_delete": found.auto_delete,
            "internal": found.internal,
        }
        after = {"type": wanted.type, "durable": wanted.durable, "auto_delete": False, "internal": False}
        differs = _mapping_differences(before | found.arguments, after)
        if differs:
            yield _unfit("exchange", wanted.name, differs, "stop what publishes to it, delete it")


def _unfit_queues(topology: Topology, observed: Observed) -> Iterator[Refusal]:
    there = {queue.name: queue for queue in observed.queues}
    for wanted in topology.queues:
        found = there.get(wanted.name)
        if found is None:
            continue
        before = {"durable": found.durable, "auto_delete": found.auto_delete, "exclusive": bool(found.exclusive)}
        after = {"durable": wanted.durable, "auto_delete": False, "exclusive": False}
        # Newer brokers write the type into the arguments even where none was given; an absent one is classic.
        type_found = {"x-queue-type": found.arguments.get("x-queue-type", found.type or "classic")}
        differs = _mapping_differences(before | found.arguments | type_found, after | wanted.arguments)
        if differs:
            steps = f"stop its workers, let it run empty or move its {found.messages} messages, delete it"
            yield _unfit("queue", wanted.name, differs, steps)


def _unfit(kind: str, name: str, differs: str, steps: str) -> Refusal:
    sentence = (
        f'The {kind} "{name}" exists with other properties ({differs}), which cannot be changed in place: {steps}, '
        "and apply again."
    )
    return Refusal(kind, name, sentence)


def _differences(found: object, wanted: object, fields: Iterable[str]) -> str:
    before = {field: getattr(found, field) for field in fields}
    after = {field: getattr(wanted, field) for field in fields}
    return _mapping_differences(before, after)


def _mapping_differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    keys = dict.fromkeys((*after, *before))
    return ", ".join(
        f"{key} {_shown(before, key)} -> {_shown(after, key)}" for key in keys if before.get(key) != after.get(key)
    )


def _shown(values: Mapping[str, Any], key: str) -> str:
    value = values.get(key, "unset")
    return str(value).lower() if isinstance(value, bool) else str(value)


def _frozen(arguments: Mapping[str, Any]) -> frozenset[tuple[str, str]]:
    return frozenset((key, repr(value)) for key, value in arguments.items())


def _listed(tags: Iterable[str]) -> str:
    return "+".join(sorted(tags)) or "none"
