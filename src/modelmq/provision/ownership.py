"""Which names on a broker are ours: those of the Topology, and those that the last apply wrote down on the broker.

The record is a global parameter per virtual host. It is widened before the first write and narrowed after the last
deletion, so an interrupted apply never forgets what it made. Pure. What neither names is not ours.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import msgspec

from modelmq.errors import ProvisionError
from modelmq.provision.plan_values import BindingKey, Kind, Observed, Owned, Removal, key_of
from modelmq.topology_values import Topology

_FORMAT = 1
_LONGEST_NAME = 255


class _Record(msgspec.Struct, frozen=True):
    """The value of the global parameter, in a stable order."""

    format: int
    users: tuple[str, ...] = ()
    policies: tuple[str, ...] = ()
    exchanges: tuple[str, ...] = ()
    queues: tuple[str, ...] = ()
    bindings: tuple[tuple[str, str, str, str], ...] = ()


def parameter_name(vhost: str) -> str:
    """The global parameter that keeps the record; RabbitMQ takes names of at most 255 characters."""
    name = f"modelmq-owned-{vhost}"
    return name if len(name) <= _LONGEST_NAME else f"modelmq-owned-{hashlib.sha256(vhost.encode()).hexdigest()}"


def owned_by(topology: Topology) -> Owned:
    """All that the topology names."""
    return Owned(
        users=frozenset(user.name for user in topology.users),
        policies=frozenset(policy.name for policy in topology.policies),
        exchanges=frozenset(exchange.name for exchange in topology.exchanges),
        queues=frozenset(queue.name for queue in topology.queues),
        bindings=frozenset(map(key_of, topology.bindings)),
    )


def together(one: Owned, other: Owned) -> Owned:
    """What either owns."""
    return Owned(
        one.users | other.users,
        one.policies | other.policies,
        one.exchanges | other.exchanges,
        one.queues | other.queues,
        one.bindings | other.bindings,
    )


def without(one: Owned, other: Owned) -> Owned:
    """What the first owns and the other does not."""
    return Owned(
        one.users - other.users,
        one.policies - other.policies,
        one.exchanges - other.exchanges,
        one.queues - other.queues,
        one.bindings - other.bindings,
    )


def still_there(owned: Owned, observed: Observed) -> Owned:
    """The part of it that is on the broker."""
    return Owned(
        users=owned.users & {user.name for user in observed.users},
        policies=owned.policies & {policy.name for policy in observed.policies},
        exchanges=owned.exchanges & {exchange.name for exchange in observed.exchanges},
        queues=owned.queues & {queue.name for queue in observed.queues},
        bindings=owned.bindings & {key_of(each) for each in observed.bindings if each.destination_type == "queue"},
    )


def records(
    topology: Topology, observed: Observed, removals: Iterable[Removal], *, writes: bool
) -> tuple[Owned | None, Owned | None]:
    """What to record before the first write and after the last deletion, None where nothing is to be recorded.

    Whoever changes nothing records nothing on a broker without a record: there another provisioner is at work.
    """
    removals = tuple(removals)
    recorded, wanted = observed.recorded or Owned(), owned_by(topology)
    # A user who has rights elsewhere serves another virtual host now, and is no longer ours to delete.
    shared = Owned(users=frozenset(permission.user for permission in observed.elsewhere))
    stays = without(still_there(without(recorded, wanted), observed), shared)
    widest, narrowest = together(recorded, wanted), together(wanted, without(stays, _removed(removals)))
    if observed.recorded is None and not writes:
        return None, None
    first = widest if writes and widest != observed.recorded else None
    standing = observed.recorded if first is None else first
    return first, narrowest if narrowest != standing else None


def written(owned: Owned) -> object:
    """The record as the value of a global parameter."""
    record = _Record(
        _FORMAT,
        tuple(sorted(owned.users)),
        tuple(sorted(owned.policies)),
        tuple(sorted(owned.exchanges)),
        tuple(sorted(owned.queues)),
        tuple(sorted(owned.bindings)),
    )
    return msgspec.to_builtins(record)


def read(value: object, vhost: str) -> Owned:
    """The record out of the value of a global parameter. Raises ProvisionError where it is not one of ours."""
    try:
        record = msgspec.convert(value, _Record)
    except msgspec.ValidationError:
        record = _Record(0)
    if record.format != _FORMAT:
        name = parameter_name(vhost)
        raise ProvisionError(
            f"The global parameter {name} on the broker, where ModelMQ keeps what it owns, cannot be read: delete it "
            f"with rabbitmqctl clear_global_parameter {name}, and nothing but the models of now is owned."
        )
    return Owned(
        frozenset(record.users),
        frozenset(record.policies),
        frozenset(record.exchanges),
        frozenset(record.queues),
        frozenset(BindingKey(*each) for each in record.bindings),
    )


def _removed(removals: Iterable[Removal]) -> Owned:
    removals = tuple(removals)

    def names(kind: Kind) -> frozenset[str]:
        return frozenset(each.name for each in removals if each.kind == kind)

    bindings = frozenset(key_of(each.binding) for each in removals if each.binding is not None)
    return Owned(names("user"), names("policy"), names("exchange"), names("queue"), bindings)
