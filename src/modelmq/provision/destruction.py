"""Takes everything that is ours from a broker again, and nothing else: all of it, or nothing where a queue is in use.

Exchanges go first, so that nothing new arrives in the queues; those are then asked once more whether they are empty.
The virtual host goes when nobody else has anything in it. Secret files stay, for the next apply.
"""

from __future__ import annotations

import msgspec

from modelmq.broker.management import Management
from modelmq.errors import ProvisionError
from modelmq.provision.conflicts import foreign_vhost, is_ours
from modelmq.provision.deletion import InUse, still_used, uses
from modelmq.provision.execute import Target, each_of, remove_all, writers
from modelmq.provision.ownership import owned_by, parameter_name, still_there, together
from modelmq.provision.plan_values import Kept, Observed, Owned, Removal
from modelmq.provision.removals import in_use, rights, users
from modelmq.topology_values import Topology


class Destruction(msgspec.Struct, frozen=True):
    """What goes, in the order to delete it, what stays, and which queues are in use although nobody named them."""

    vhost: str
    removals: tuple[Removal, ...]
    kept: tuple[Kept, ...]
    used: tuple[InUse, ...]

    def __str__(self) -> str:
        return f"{len(self.removals)} deleted." if self.removals else "Nothing to delete."


def destruction(topology: Topology, observed: Observed, by_name: frozenset[str]) -> Destruction:
    """What taking away everything that is ours comes to. Pure. Queues `by_name` go although they are in use."""
    vhost = topology.vhost.name
    if vhost not in {each.name for each in observed.vhosts}:
        return Destruction(vhost, (), (), ())
    ours = still_there(together(observed.recorded or Owned(), owned_by(topology)), observed)
    there = sorted((queue for queue in observed.queues if queue.name in ours.queues), key=lambda queue: queue.name)
    found = (
        *(Removal("exchange", name) for name in sorted(ours.exchanges)),
        *(Removal("queue", q.name, why=in_use(q), by_name=q.name in by_name) for q in there),
        *(Removal("policy", name) for name in sorted(ours.policies)),
        *rights(ours.users, observed),
        *users(ours.users, observed),
        _vhost(topology, ours, observed),
    )
    return Destruction(
        vhost,
        tuple(each for each in found if isinstance(each, Removal)),
        tuple(each for each in found if isinstance(each, Kept)),
        tuple(InUse(q.name, in_use(q)) for q in there if in_use(q) and q.name not in by_name),
    )


def destroy(topology: Topology, observed: Observed, by_name: frozenset[str], target: Target) -> Destruction:
    """Carries it out; the target needs its guard. Raises ProvisionError, before the first deletion where a queue is
    in use."""
    if foreign := foreign_vhost(topology, observed):
        raise ProvisionError(foreign.sentence)
    made = destruction(topology, observed, by_name)
    management, vhost = target.management, made.vhost
    queues = [each.name for each in made.removals if each.kind == "queue"]
    unnamed = [name for name in queues if name not in by_name]
    used = made.used
    if unnamed and not used and target.guard is not None:
        used = uses(unnamed, vhost, management, target.guard.count)
    if used:
        raise still_used(used)
    with writers() as pool:
        exchanges = [each for each in made.removals if each.kind == "exchange"]
        each_of(exchanges, lambda removal: management.delete_exchange(vhost, removal.name), pool)
        others = (each for each in made.removals if each.kind not in ("exchange", "vhost"))
        used = remove_all(others, target, pool)
        if used:
            raise still_used(used)
        if made.removals and made.removals[-1].kind == "vhost":
            _delete_vhost(vhost, management)
    management.delete_global_parameter(parameter_name(vhost))
    return made


def _vhost(topology: Topology, ours: Owned, observed: Observed) -> Removal | Kept:
    """Kept where it or anything in it is not ours; administrators may have rights in all of them."""
    name = topology.vhost.name
    if not is_ours(topology, observed):
        return Kept("vhost", name, f'The virtual host "{name}" stays, as it was not made by ModelMQ.')
    others = [
        *(f'the queue "{each.name}"' for each in observed.queues if each.name not in ours.queues),
        *(f'the exchange "{each.name}"' for each in observed.exchanges
          if each.name and not each.name.startswith("amq.") and each.name not in ours.exchanges),
        *(f'the policy "{each.name}"' for each in observed.policies if each.name not in ours.policies),
        *(f'rights of the user "{each.user}"' for each in observed.permissions
          if each.user not in ours.users | _administrators(observed)),
    ]  # fmt: skip
    if not others:
        return Removal("vhost", name)
    return Kept("vhost", name, f'The virtual host "{name}" stays, as others have something in it: {others[0]}.')


def _administrators(observed: Observed) -> frozenset[str]:
    return frozenset(user.name for user in observed.users if "administrator" in user.tag_set) | {observed.admin}


def _delete_vhost(vhost: str, management: Management) -> None:
    """With it goes whatever is in it, so somebody may have made something since we looked."""
    if management.queues(vhost):
        raise ProvisionError(f'The virtual host "{vhost}" stays, as a queue was made in it meanwhile: destroy again.')
    management.delete_vhost(vhost)
