"""What is ours, is on the broker, and is wanted no longer: the deletions, and what stays because somebody uses it.

Pure. Only names that the last apply recorded can be in here; nothing of others ever is. Users come last and a queue's
bindings first, so that nothing new arrives in what is about to go.
"""

from __future__ import annotations

from collections.abc import Iterator

from modelmq.broker.management_values import QueueInfo
from modelmq.provision.ownership import owned_by, still_there, without
from modelmq.provision.plan_values import Allowed, Kept, Observed, Owned, Removal, key_of
from modelmq.topology_values import Topology


def removals(topology: Topology, observed: Observed, allowed: Allowed) -> tuple[tuple[Removal, ...], tuple[Kept, ...]]:
    """What goes, in the order to delete it, and what stays in spite of being unwanted."""
    if not allowed.remove or observed.recorded is None:
        return (), ()
    unwanted = still_there(without(observed.recorded, owned_by(topology)), observed)
    found = (
        *_bindings(unwanted, observed),
        *_queues(unwanted, observed, allowed),
        *_exchanges(topology, unwanted, observed),
        *(Removal("policy", name) for name in sorted(unwanted.policies)),
        *rights(unwanted.users, observed),
        *users(unwanted.users, observed),
    )
    gone = tuple(each for each in found if isinstance(each, Removal))
    return gone, tuple(each for each in found if isinstance(each, Kept))


def in_use(queue: QueueInfo) -> str:
    """What speaks against deleting the queue: what it holds and who reads it, or nothing at all."""
    if queue.state not in ("", "running"):
        return f"is {queue.state}, so that nobody can tell what it holds"
    parts = []
    if queue.messages:
        parts.append(f"holds {queue.messages} message{'s' if queue.messages > 1 else ''}")
    if queue.consumers:
        parts.append(f"has {queue.consumers} consumer{'s' if queue.consumers > 1 else ''}")
    return " and ".join(parts)


def rights(names: frozenset[str], observed: Observed) -> Iterator[Removal]:
    """Of these users in the virtual host."""
    for permission in observed.permissions:
        if permission.user in names:
            yield Removal("permission", permission.user)


def users(names: frozenset[str], observed: Observed) -> Iterator[Removal | Kept]:
    """Users are shared by all virtual hosts of a broker: one that has rights in another stays."""
    elsewhere = {permission.user: permission.vhost for permission in observed.elsewhere}
    for name in sorted(names & {user.name for user in observed.users}):
        if name in elsewhere:
            sentence = f'The user "{name}" stays, as it has rights in the virtual host "{elsewhere[name]}" too.'
            yield Kept("user", name, sentence)
        else:
            yield Removal("user", name)


def _bindings(unwanted: Owned, observed: Observed) -> Iterator[Removal]:
    for binding in observed.bindings:
        if binding.destination_type == "queue" and key_of(binding) in unwanted.bindings:
            yield Removal("binding", str(key_of(binding)), binding)


def _queues(unwanted: Owned, observed: Observed, allowed: Allowed) -> Iterator[Removal | Kept]:
    for queue in sorted(observed.queues, key=lambda each: each.name):
        if queue.name not in unwanted.queues:
            continue
        use = in_use(queue) or ("is in use" if queue.name in allowed.spare else "")
        if queue.name in allowed.delete:
            yield Removal("queue", queue.name, why=use, by_name=True)
        elif use:
            sentence = (
                f'The queue "{queue.name}" is of no model any more, but {use}: it stays unless --delete {queue.name} '
                "names it."
            )
            yield Kept("queue", queue.name, sentence)
        else:
            yield Removal("queue", queue.name)


def _exchanges(topology: Topology, unwanted: Owned, observed: Observed) -> Iterator[Removal | Kept]:
    ours = unwanted.bindings | {key_of(binding) for binding in topology.bindings}
    for name in sorted(unwanted.exchanges):
        others = [each for each in observed.bindings if name in (each.source, each.destination)]
        bound = next((b for b in others if b.destination_type != "queue" or key_of(b) not in ours), None)
        if bound is None:
            yield Removal("exchange", name)
        else:
            yield Kept("exchange", name, f'The exchange "{name}" stays, as others are bound to it ({key_of(bound)}).')
