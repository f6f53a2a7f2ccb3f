"""Makes a broker equal to a topology: looks, plans, writes, and looks again.

Run by the CLI, the supervisor and tests with an administrator's access. It may be repeated, interrupted and run twice
at once: every round starts from what is there, and writes only what differs. Does not know how the plan is made.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import msgspec

from modelmq.broker.management import Management
from modelmq.errors import ProvisionError
from modelmq.provision.accounts import secrets_dir, with_generations
from modelmq.provision.deletion import Guard
from modelmq.provision.execute import Target, execute
from modelmq.provision.look import look
from modelmq.provision.plan import plan
from modelmq.provision.plan_values import Allowed, Change, Kept, Observed, Plan, Removal
from modelmq.provision.secret_files import ensure_secret
from modelmq.settings import Settings
from modelmq.topology import build
from modelmq.topology_names import ModelRoute
from modelmq.topology_values import Topology

_ROUNDS = 3
_CAREFUL = Allowed()


class ApplyReport(msgspec.Struct, frozen=True):
    """What an apply did. `writes` counts the objects written and deleted, 0 when everything was as it should be."""

    changes: tuple[Change, ...]
    topology: Topology
    removals: tuple[Removal, ...] = ()
    kept: tuple[Kept, ...] = ()

    @property
    def writes(self) -> int:
        """Objects written and deleted."""
        return len(self.changes) + len(self.removals)

    def __str__(self) -> str:
        kinds = {"written": [each.kind for each in self.changes], "deleted": [each.kind for each in self.removals]}
        told = "; ".join(f"{len(each)} {word}: {_counted(each)}" for word, each in kinds.items() if each)
        return f"{told}." if told else "Nothing to change."


def provision(settings: Settings, models: Iterable[ModelRoute], management: Management) -> ApplyReport:
    """Makes the broker ready for these models, with secrets in the state folder. Raises ConfigError, ProvisionError."""
    seen = look(settings.broker.vhost, management)
    topology = build(with_generations(settings), settings.broker.vhost, models, broker_version=seen.version)
    return apply(topology, management, secrets_dir(settings), seen=seen)


def apply(
    topology: Topology,
    management: Management,
    folder: Path,
    *,
    allowed: Allowed = _CAREFUL,
    guard: Guard | None = None,
    seen: Observed | None = None,
) -> ApplyReport:
    """Makes the broker equal to the topology and keeps every account's secret in a file of the folder.

    Deletes nothing unless `allowed`; then `guard` tells whether queues are unused. `seen` is the broker's state where
    somebody has just looked. Raises ProvisionError, before the first write where not all of it can be done.
    """
    vhost = topology.vhost.name
    passwords = secrets_of(topology, folder)
    target = Target(vhost, management, passwords, guard)
    changes: tuple[Change, ...] = ()
    removals: tuple[Removal, ...] = ()
    for _ in range(_ROUNDS):
        made = plan(topology, seen or look(vhost, management), passwords, allowed)
        if made.refusals:
            raise refused(made)
        used = execute(made, target)
        if made.empty:
            return ApplyReport(changes, topology, removals, made.kept)
        spared = {each.name for each in used}
        seen, allowed = None, msgspec.structs.replace(allowed, adopt=False, spare=allowed.spare | spared)
        changes += made.changes
        removals += tuple(each for each in made.removals if each.kind != "queue" or each.name not in spared)
    left = [*(f"{each.kind} {each.name}" for each in made.changes), *(each.name for each in made.removals)]
    kept = ", ".join(left[:3])
    raise ProvisionError(f"RabbitMQ did not keep what was written ({kept}); is another program changing it as well?")


def secrets_of(topology: Topology, folder: Path) -> dict[str, str]:
    """Every user's password, made where there is none yet. Raises ConfigError, ProvisionError."""
    return {user.name: ensure_secret(folder, user.name) for user in topology.users}


def refused(made: Plan) -> ProvisionError:
    """The first refusal of a plan as an error, and how many more there are."""
    more = f" ({len(made.refusals) - 1} more like it.)" if len(made.refusals) > 1 else ""
    return ProvisionError(made.refusals[0].sentence + more)


def _counted(kinds: Iterable[str]) -> str:
    return ", ".join(f"{number} {kind}" for kind, number in sorted(Counter(kinds).items()))
