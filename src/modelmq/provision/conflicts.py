"""What stands in the way of a topology: brokers that cannot keep its promises, virtual hosts of others, and exchanges
and queues that are there with properties that can never be changed.

Pure. Each refusal is a sentence with the steps that resolve it; a conflict whose name was given becomes a replacement.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from modelmq.broker.management_values import BindingInfo, ExchangeInfo, QueueInfo
from modelmq.provision.differences import mapping_differences
from modelmq.provision.ownership import owned_by, together
from modelmq.provision.plan_values import Allowed, Change, Observed, Owned, Refusal, key_of
from modelmq.topology_values import Exchange, Queue, Topology

OLDEST_BROKER = (3, 10)
# At-least-once dead-lettering needs both; newer brokers no longer list flags that are always on.
_NEEDED_FLAGS = ("quorum_queue", "stream_queue")


class Conflicts(msgspec.Struct, frozen=True):
    """What cannot be done, and what is done by deleting and making anew, as its name was given."""

    refusals: tuple[Refusal, ...]
    replacements: tuple[Change, ...]


def conflicts(topology: Topology, observed: Observed, allowed: Allowed) -> Conflicts:
    """Every conflict between the topology and what is there."""
    foreign = None if allowed.adopt else foreign_vhost(topology, observed)
    found = (*_broker(topology, observed), *([foreign] if foreign else []), *_named(topology, observed, allowed))
    objects = (*_exchanges(topology, observed, allowed), *_queues(topology, observed, allowed))
    return Conflicts(
        (*found, *(each for each in objects if isinstance(each, Refusal))),
        tuple(each for each in objects if isinstance(each, Change)),
    )


def _broker(topology: Topology, observed: Observed) -> Iterator[Refusal]:
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


def is_ours(topology: Topology, observed: Observed) -> bool:
    """Whether the virtual host is: when an apply left its record, or when it bears our description."""
    described = any(
        vhost.name == topology.vhost.name and vhost.description == topology.vhost.description
        for vhost in observed.vhosts
    )
    return described or observed.recorded is not None


def foreign_vhost(topology: Topology, observed: Observed) -> Refusal | None:
    """Why the virtual host is not to be used, where others have something in it and it is not ours.

    Most of our exchanges are the sign of one that Pulumi made: its provider writes neither record nor description.
    """
    name = topology.vhost.name
    exchanges = {each.name for each in observed.exchanges if each.name and not each.name.startswith("amq.")}
    ours = {each.name for each in topology.exchanges}
    made_by_pulumi = len(exchanges & ours) * 2 > len(ours)
    if is_ours(topology, observed) or made_by_pulumi or not (exchanges or observed.queues or observed.policies):
        return None
    description = next((vhost.description for vhost in observed.vhosts if vhost.name == name), "")
    sentence = (
        f'The virtual host "{name}" belongs to somebody else (its description is "{description}"): '
        "set broker.vhost to another, or take it over with topology apply --adopt."
    )
    return Refusal("vhost", name, sentence)


def _named(topology: Topology, observed: Observed, allowed: Allowed) -> Iterator[Refusal]:
    """Names that were given to be deleted and must not be; one that is gone already is fine."""
    wanted, recorded = owned_by(topology), observed.recorded or Owned()
    for name in sorted(allowed.delete & {queue.name for queue in observed.queues}):
        if name in wanted.queues:
            yield Refusal("queue", name, f'The queue "{name}" is of a model that is there: --delete takes others only.')
        elif name not in recorded.queues:
            yield Refusal("queue", name, f'The queue "{name}" was not made by ModelMQ, so --delete leaves it alone.')


def _exchanges(topology: Topology, observed: Observed, allowed: Allowed) -> Iterator[Refusal | Change]:
    there = {exchange.name: exchange for exchange in observed.exchanges}
    for wanted in topology.exchanges:
        found = there.get(wanted.name)
        if found is None:
            continue
        differs = _exchange_differences(found, wanted)
        if not differs:
            continue
        hanging = (b for b in observed.bindings if wanted.name in (b.source, b.destination))
        bound = _bound_by_others(topology, observed, hanging)
        if wanted.name not in allowed.replace:
            yield _unfit("exchange", wanted.name, differs, "stop what publishes to it")
        elif bound is not None:
            yield _bound(wanted.name, "exchange", bound)
        else:
            yield Change("replace", "exchange", wanted.name, wanted, differs)


def _queues(topology: Topology, observed: Observed, allowed: Allowed) -> Iterator[Refusal | Change]:
    there = {queue.name: queue for queue in observed.queues}
    for wanted in topology.queues:
        found = there.get(wanted.name)
        if found is None:
            continue
        differs = _queue_differences(found, wanted)
        if not differs:
            continue
        to_it = (b for b in observed.bindings if b.destination == wanted.name and b.destination_type == "queue")
        bound = _bound_by_others(topology, observed, to_it)
        if wanted.name not in allowed.replace:
            steps = f"stop its workers, let it run empty or move its {found.messages} messages"
            yield _unfit("queue", wanted.name, differs, steps)
        elif bound is not None:
            yield _bound(wanted.name, "queue", bound)
        else:
            lost = f"; {found.messages} messages are lost" if found.messages else ""
            yield Change("replace", "queue", wanted.name, wanted, differs + lost)


def _exchange_differences(found: ExchangeInfo, wanted: Exchange) -> str:
    before = {
        "type": found.type,
        "durable": found.durable,
        "auto_delete": found.auto_delete,
        "internal": found.internal,
    }
    after = {"type": wanted.type, "durable": wanted.durable, "auto_delete": False, "internal": False}
    return mapping_differences(before | found.arguments, after)


def _queue_differences(found: QueueInfo, wanted: Queue) -> str:
    before = {"durable": found.durable, "auto_delete": found.auto_delete, "exclusive": bool(found.exclusive)}
    after = {"durable": wanted.durable, "auto_delete": False, "exclusive": False}
    # Newer brokers write the type into the arguments even where none was given; an absent one is classic.
    type_found = {"x-queue-type": found.arguments.get("x-queue-type", found.type or "classic")}
    return mapping_differences(before | found.arguments | type_found, after | wanted.arguments)


def _bound_by_others(topology: Topology, observed: Observed, bindings: Iterable[BindingInfo]) -> BindingInfo | None:
    """One that would vanish with what it is bound to, although it is none of ours."""
    ours = together(observed.recorded or Owned(), owned_by(topology)).bindings
    return next((b for b in bindings if b.source and (b.destination_type != "queue" or key_of(b) not in ours)), None)


def _unfit(kind: str, name: str, differs: str, first_steps: str) -> Refusal:
    sentence = (
        f'The {kind} "{name}" exists with other properties ({differs}), which cannot be changed in place: '
        f"{first_steps}, delete it, and apply again; or apply with --replace {name}, which loses what it holds."
    )
    return Refusal(kind, name, sentence)


def _bound(name: str, kind: str, binding: BindingInfo) -> Refusal:
    sentence = (
        f'The {kind} "{name}" cannot be replaced while others\' bindings hang on it '
        f"({key_of(binding)}): stop what made them or unbind them, and apply again."
    )
    return Refusal(kind, name, sentence)
