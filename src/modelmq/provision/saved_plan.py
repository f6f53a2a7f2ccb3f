"""A plan as a file, and whether it still holds: what was wanted, what was to be done, and a hash of what was seen.

The file has no secret in it. Applying it means planning again from what it wanted, on a broker in the very state that
it was made for. Pure but for reading and writing the one file.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

from modelmq.errors import ConfigError, ProvisionError
from modelmq.provision.ownership import owned_by, together, written
from modelmq.provision.plan_values import Allowed, Observed, Owned, Plan, arguments_text, key_of
from modelmq.provision.private_file import write_private
from modelmq.topology_names import is_service_queue
from modelmq.topology_values import Topology

_FORMAT = "modelmq plan 1"
_LONGEST_BYTES = 2**26


class SavedPlan(msgspec.Struct, frozen=True):
    """`shown` are the lines that the plan was shown with; `seen` is the hash of the state it was made for."""

    format: str
    topology: Topology
    allowed: Allowed
    shown: tuple[str, ...]
    seen: str


def fingerprint(topology: Topology, observed: Observed) -> str:
    """A hash of all that a plan depends on: what is ours, what hangs on it, and which broker it is.

    Left out is what comes and goes by itself, such as message counts and the services' own queues, and others' objects.
    """
    owned = together(observed.recorded or Owned(), owned_by(topology))
    vhost = topology.vhost.name
    bindings = [
        b
        for b in observed.bindings
        if (b.destination in owned.queues or b.source in owned.exchanges)
        and b.source
        and not is_service_queue(b.destination)
    ]
    parts = (
        (observed.cluster, observed.version, vhost),
        [(each.name, each.description) for each in observed.vhosts if each.name == vhost],
        sorted((f.name, f.state) for f in observed.feature_flags),
        sorted((u.name, sorted(u.tag_set), u.password_hash) for u in observed.users if u.name in owned.users),
        sorted((p.user, p.configure, p.write, p.read) for p in observed.permissions),
        sorted((p.user, p.vhost) for p in observed.elsewhere if p.user in owned.users),
        sorted((x.name, x.type, x.durable, x.auto_delete, x.internal, arguments_text(x.arguments))
               for x in observed.exchanges if x.name in owned.exchanges),
        sorted((q.name, q.type, q.durable, q.auto_delete, bool(q.exclusive), arguments_text(q.arguments))
               for q in observed.queues if q.name in owned.queues),
        sorted((*key_of(b), b.destination_type) for b in bindings),
        sorted((p.name, p.pattern, p.apply_to, p.priority, arguments_text(p.definition)) for p in observed.policies),
        None if observed.recorded is None else written(observed.recorded),
    )  # fmt: skip
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()


def shown(made: Plan) -> tuple[str, ...]:
    """One line for each thing that is done."""
    changes = (f"{each.action} {each.kind} {each.name} {each.why}".rstrip() for each in made.changes)
    return (*changes, *(f"delete {each.kind} {each.name} {each.why}".rstrip() for each in made.removals))


def save(path: Path, topology: Topology, allowed: Allowed, made: Plan, seen: str) -> None:
    """Writes the file (0600), whole or not at all. Raises ProvisionError."""
    content = msgspec.json.encode(SavedPlan(_FORMAT, topology, allowed, shown(made), seen))
    write_private(path, msgspec.json.format(content, indent=1) + b"\n")


def load(path: Path) -> SavedPlan:
    """Raises ConfigError for a file that is none."""
    try:
        with path.open("rb") as file:
            content = file.read(_LONGEST_BYTES)
        saved = msgspec.json.decode(content, type=SavedPlan)
    except OSError as error:
        raise ConfigError(f"The plan {path} cannot be read: {error.strerror}.") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not a plan that modelmq topology plan --out wrote.") from error
    if saved.format != _FORMAT:
        raise ConfigError(f"The plan {path} is of another version of ModelMQ: plan again.")
    return saved


def check(saved: SavedPlan, observed: Observed, made: Plan) -> None:
    """Whether the broker is as it was when the plan was made. Raises ProvisionError."""
    if fingerprint(saved.topology, observed) != saved.seen or shown(made) != saved.shown:
        raise ProvisionError(
            f'The virtual host "{saved.topology.vhost.name}" is no longer as it was when the plan was made: plan again.'
        )
