"""What others added by hand to things of ours, and which no apply takes away: bindings, rights, policies that win.

Pure. Each is a sentence for `drift`; none leads to a write, as what is not ours is never touched.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from modelmq.broker.management_values import BindingInfo, PermissionInfo, PolicyInfo
from modelmq.provision.ownership import owned_by, together
from modelmq.provision.plan_values import Observed, Owned, Stray, key_of
from modelmq.topology_names import is_service_queue
from modelmq.topology_values import Exchange, Policy, Queue, Topology

_APPLIES_TO_QUEUES = frozenset({"all", "queues", "classic_queues", "quorum_queues"})
_APPLIES_TO_EXCHANGES = frozenset({"all", "exchanges"})


def strays(topology: Topology, observed: Observed) -> tuple[Stray, ...]:
    """Everything that hangs on what the topology names, and is neither in it nor of a former one."""
    owned = together(observed.recorded or Owned(), owned_by(topology))
    return (
        *_bindings(topology, observed, owned),
        *_rights_elsewhere(topology, observed),
        *_rights_of_others(topology, observed, owned),
        *_policies(topology, observed, owned),
    )


def _bindings(topology: Topology, observed: Observed, owned: Owned) -> Iterator[Stray]:
    queues = {queue.name for queue in topology.queues}
    exchanges = {exchange.name for exchange in topology.exchanges}
    for found in observed.bindings:
        if not found.source:  # every queue's own, in the default exchange
            continue
        to_exchange = found.destination_type != "queue"
        if not to_exchange and (key_of(found) in owned.bindings or is_service_queue(found.destination)):
            continue
        to_ours = found.destination in (exchanges if to_exchange else queues)
        if to_ours:
            yield Stray("binding", str(key_of(found)), f"The binding {_shown(found)} was added by somebody else.")
        elif found.source in exchanges:
            sentence = f"The binding {_shown(found)} was added by somebody else, who gets a copy of these messages."
            yield Stray("binding", str(key_of(found)), sentence)


def _shown(binding: BindingInfo) -> str:
    return f'"{key_of(binding)}"'


def _rights_elsewhere(topology: Topology, observed: Observed) -> Iterator[Stray]:
    """Virtual hosts of the same environment share its users."""
    users = {user.name for user in topology.users}
    shared = {vhost.name for vhost in observed.vhosts if vhost.description == topology.vhost.description}
    for permission in observed.elsewhere:
        if permission.user in users and permission.vhost not in shared:
            sentence = f'The user "{permission.user}" was given rights in the virtual host "{permission.vhost}" too.'
            yield Stray("permission", permission.user, sentence)


def _rights_of_others(topology: Topology, observed: Observed, owned: Owned) -> Iterator[Stray]:
    """Administrators could give themselves any right, so theirs say nothing."""
    administrators = {user.name for user in observed.users if "administrator" in user.tag_set}
    names = [*(exchange.name for exchange in topology.exchanges), *(queue.name for queue in topology.queues)]
    for permission in observed.permissions:
        if permission.user in owned.users | administrators | {observed.admin}:
            continue
        reached = next((name for name in names if _reaches(permission, name)), None)
        if reached is not None:
            sentence = f'The user "{permission.user}" is none of ours and has rights on "{reached}".'
            yield Stray("permission", permission.user, sentence)


def _reaches(permission: PermissionInfo, name: str) -> bool:
    # RabbitMQ takes the empty pattern for "nothing", and looks for the others anywhere in the name.
    return any(
        pattern and _found(pattern, name) for pattern in (permission.configure, permission.write, permission.read)
    )


def _policies(topology: Topology, observed: Observed, owned: Owned) -> Iterator[Stray]:
    for found in observed.policies:
        if found.name in owned.policies:
            continue
        beaten = [
            *_beaten(found, topology.queues, topology.policies, _APPLIES_TO_QUEUES, "queues"),
            *_beaten(found, topology.exchanges, topology.policies, _APPLIES_TO_EXCHANGES, "exchanges"),
        ]
        if beaten:
            more = f" and {len(beaten) - 1} more" if len(beaten) > 1 else ""
            sentence = f'The policy "{found.name}" is none of ours and wins over ours on "{beaten[0]}"{more}.'
            yield Stray("policy", found.name, sentence)


def _beaten(
    found: PolicyInfo, objects: Iterable[Queue | Exchange], ours: Iterable[Policy], kinds: frozenset[str], apply_to: str
) -> Iterator[str]:
    """Of two policies with one priority either may win, so the other's counts."""
    if found.apply_to not in kinds:
        return
    ours = [policy for policy in ours if policy.apply_to == apply_to]
    for each in objects:
        other_type = isinstance(each, Queue) and found.apply_to not in ("all", "queues", f"{each.type}_queues")
        if other_type or not _found(found.pattern, each.name):
            continue
        mine = [policy.priority for policy in ours if _found(policy.pattern, each.name)]
        if not mine or found.priority >= max(mine):
            yield each.name


def _found(pattern: str, name: str) -> bool:
    """A pattern that Python cannot read may match anything: better told once too often."""
    try:
        return re.search(pattern, name) is not None
    except re.error:
        return True
