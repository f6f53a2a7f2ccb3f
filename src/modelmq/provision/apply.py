"""Carries a plan out on a real broker: looks, plans, writes, and looks again.

Run by the CLI, the supervisor and tests with an administrator's access. It may be repeated, interrupted and run twice
at once: every round starts from what is there, and writes only what differs. Does not know how the plan is made.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path

import msgspec

from modelmq.broker.management import Management
from modelmq.broker.management_values import BindingInfo, PermissionInfo, PolicyInfo
from modelmq.broker.secrets import SECRETS_FOLDER
from modelmq.errors import ProvisionError
from modelmq.provision.passwords import SALT_BYTES, password_hash
from modelmq.provision.plan import Change, Observed, Plan, Wanted, plan
from modelmq.provision.secret_files import ensure_secret
from modelmq.settings import Settings
from modelmq.topology import ModelRoute, build
from modelmq.topology_values import Binding, Exchange, Permission, Policy, Queue, Topology, User, Vhost

_ROUNDS = 3
_WRITERS = 4


class ApplyReport(msgspec.Struct, frozen=True):
    """What an apply did. `writes` counts the broker's objects written, 0 when everything was as it should be."""

    changes: tuple[Change, ...]
    topology: Topology

    @property
    def writes(self) -> int:
        """Objects written."""
        return len(self.changes)

    def __str__(self) -> str:
        if not self.changes:
            return "Nothing to change."
        kinds = groupby(sorted(change.kind for change in self.changes))
        return f"{self.writes} written: " + ", ".join(f"{len(list(all_of))} {kind}" for kind, all_of in kinds) + "."


def provision(settings: Settings, models: Iterable[ModelRoute], management: Management) -> ApplyReport:
    """Makes the broker ready for these models, with secrets in the state folder. Raises ConfigError, ProvisionError."""
    version = management.overview().version
    topology = build(settings.topology, settings.broker.vhost, models, broker_version=version)
    return apply(topology, management, Path(settings.state_dir) / SECRETS_FOLDER)


def apply(topology: Topology, management: Management, secrets_dir: Path) -> ApplyReport:
    """Makes the broker equal to the topology and keeps every user's secret in `<secrets_dir>/<user>`.

    Raises ProvisionError, before the first write where the topology cannot be applied as a whole.
    """
    vhost = topology.vhost.name
    passwords = {user.name: ensure_secret(secrets_dir / user.name) for user in topology.users}
    done: tuple[Change, ...] = ()
    for _ in range(_ROUNDS):
        made = plan(topology, observe(vhost, management), passwords)
        if made.refusals:
            raise _refused(made)
        if not made.changes:
            return ApplyReport(done, topology)
        _execute(made.changes, vhost, management, passwords)
        done += made.changes
    kept = ", ".join(f"{change.kind} {change.name}" for change in made.changes[:3])
    raise ProvisionError(f"RabbitMQ did not keep what was written ({kept}); is another program changing it as well?")


def observe(vhost: str, management: Management) -> Observed:
    """The broker's state in a dozen calls, however many queues there are. Raises ProvisionError."""
    vhosts = frozenset(each.name for each in management.vhosts())
    state = Observed(
        version=management.overview().version,
        admin=management.whoami().name,
        vhosts=vhosts,
        feature_flags=management.feature_flags(),
        users=management.users(),
    )
    if vhost not in vhosts:
        return state
    return msgspec.structs.replace(
        state,
        permissions=management.permissions(vhost),
        exchanges=management.exchanges(vhost),
        queues=management.queues(vhost),
        bindings=management.bindings(vhost),
        policies=management.policies(vhost),
    )


def _refused(made: Plan) -> ProvisionError:
    more = f" ({len(made.refusals) - 1} more like it.)" if len(made.refusals) > 1 else ""
    return ProvisionError(made.refusals[0].sentence + more)


def _execute(changes: Iterable[Change], vhost: str, management: Management, passwords: Mapping[str, str]) -> None:
    """One kind after the other, as the plan orders them; objects of a kind do not depend on one another."""
    with ThreadPoolExecutor(_WRITERS, "apply") as pool:
        for _, stage in groupby(changes, lambda change: change.kind):
            try:
                for _done in pool.map(lambda change: _write(change.wanted, vhost, management, passwords), stage):
                    pass
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise


def _write(wanted: Wanted, vhost: str, management: Management, passwords: Mapping[str, str]) -> None:
    match wanted:
        case Vhost():
            management.put_vhost(wanted.name, wanted.description)
        case User():
            hashed = password_hash(passwords[wanted.name], os.urandom(SALT_BYTES))
            management.put_user(wanted.name, hashed, wanted.tags)
        case Permission():
            rights = PermissionInfo(wanted.user, wanted.configure, wanted.write, wanted.read)
            management.put_permission(vhost, rights)
        case Policy():
            definition = dict(wanted.definition)
            policy = PolicyInfo(wanted.name, wanted.pattern, wanted.apply_to, definition, wanted.priority)
            management.put_policy(vhost, policy)
        case Exchange():
            management.put_exchange(vhost, wanted.name, wanted.type)
        case Queue():
            management.put_queue(vhost, wanted.name, wanted.arguments)
        case Binding():
            binding = BindingInfo(wanted.source, wanted.destination, "queue", wanted.routing_key, wanted.arguments)
            management.add_binding(vhost, binding)
