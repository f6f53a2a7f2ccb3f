"""What is missing or differs and can be put right in place: the writes, in the order in which they depend on another.

Pure. Says what was and what will be; of passwords only that they differ. What cannot be changed in place is the
business of `conflicts`.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Set
from typing import Any

from modelmq.broker.management_values import PolicyInfo
from modelmq.provision.passwords import matches
from modelmq.provision.plan_values import Change, Observed, key_of
from modelmq.topology_values import Exchange, Permission, Policy, Queue, Topology


def differences(
    topology: Topology, observed: Observed, passwords: Mapping[str, str], replacements: Mapping[str, Change]
) -> tuple[Change, ...]:
    """The writes that make the broker equal to the topology. A user whose password is not given keeps the one it has.

    `replacements` are the exchanges and queues that are deleted and made anew; what is bound to them is bound again.
    """
    objects = (
        *_exchanges_or_queues("exchange", topology.exchanges, {each.name for each in observed.exchanges}, replacements),
        *_exchanges_or_queues("queue", topology.queues, {each.name for each in observed.queues}, replacements),
        *_bindings(topology, observed, replacements.keys()),
    )
    return (
        *_vhost(topology, observed),
        *_users(topology, observed, passwords),
        *(_own_rights(observed) if objects else ()),
        *_permissions(topology, observed),
        *_policies(topology, observed),
        *objects,
    )


def mapping_differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """`key before -> after`, for each that differs."""
    keys = dict.fromkeys((*after, *before))
    return ", ".join(
        f"{key} {_shown(before, key)} -> {_shown(after, key)}" for key in keys if before.get(key) != after.get(key)
    )


def _vhost(topology: Topology, observed: Observed) -> Iterator[Change]:
    if topology.vhost.name not in {vhost.name for vhost in observed.vhosts}:
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
        password = passwords.get(user.name)
        if password is not None and not matches(password, found.password_hash, found.hashing_algorithm):
            differs.append("password")
        if differs:
            yield Change("update", "user", user.name, user, ", ".join(differs))


def _own_rights(observed: Observed) -> Iterator[Change]:
    # RabbitMQ gives them to the creator of a virtual host, but after creating it, and somebody else may have done so.
    if observed.admin not in {permission.user for permission in observed.permissions}:
        rights = Permission(observed.admin, ".*", ".*", ".*")
        yield Change("create", "permission", observed.admin, rights, "the administrator declares queues")


def _permissions(topology: Topology, observed: Observed) -> Iterator[Change]:
    there = {permission.user: permission for permission in observed.permissions}
    for wanted in topology.permissions:
        found = there.get(wanted.user)
        if found is None:
            yield Change("create", "permission", wanted.user, wanted)
        elif differs := _field_differences(found, wanted, ("configure", "write", "read")):
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
    parts = [_field_differences(found, wanted, ("pattern", "apply_to", "priority"))]
    for key in sorted(found.definition.keys() | wanted.definition.keys()):
        before, after = found.definition.get(key, "unset"), wanted.definition.get(key, "unset")
        if before != after:
            parts.append(f"{key} {before} -> {after}")
    return ", ".join(filter(None, parts))


def _exchanges_or_queues(
    kind: str, wanted: Iterable[Exchange | Queue], there: Container[str], replacements: Mapping[str, Change]
) -> Iterator[Change]:
    for each in wanted:
        replacement = replacements.get(each.name)
        if replacement is not None and replacement.kind == kind:
            yield replacement
        elif each.name not in there:
            yield Change("create", "queue" if isinstance(each, Queue) else "exchange", each.name, each)


def _bindings(topology: Topology, observed: Observed, replaced: Set[str]) -> Iterator[Change]:
    there = {key_of(found) for found in observed.bindings if found.destination_type == "queue"}
    for wanted in topology.bindings:
        key = key_of(wanted)
        if key not in there or key.source in replaced or key.destination in replaced:
            yield Change("create", "binding", str(key), wanted)


def _field_differences(found: object, wanted: object, fields: Iterable[str]) -> str:
    before = {field: getattr(found, field) for field in fields}
    after = {field: getattr(wanted, field) for field in fields}
    return mapping_differences(before, after)


def _shown(values: Mapping[str, Any], key: str) -> str:
    value = values.get(key, "unset")
    return str(value).lower() if isinstance(value, bool) else str(value)


def _listed(tags: Iterable[str]) -> str:
    return "+".join(sorted(tags)) or "none"
