"""`modelmq topology …`: the models folder and the settings, compared with a broker, made true on it, or taken from it.

Statuses of `plan` and `drift`: 0 when nothing differs, 2 when something does, 1 for an error.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from modelmq.broker.management import connect
from modelmq.broker.management_values import Overview
from modelmq.cli import topology_text as text
from modelmq.errors import ConfigError, ProvisionError
from modelmq.provision import Allowed, Plan, plan, saved_plan
from modelmq.provision import apply as apply_to
from modelmq.provision.accounts import secrets_dir, with_generations
from modelmq.provision.apply import refused, secrets_of
from modelmq.provision.definitions import definitions
from modelmq.provision.deletion import Guard
from modelmq.provision.destruction import destroy as destroy_on
from modelmq.provision.destruction import destruction
from modelmq.provision.execute import Target
from modelmq.provision.look import look
from modelmq.provision.passwords import SALT_BYTES
from modelmq.provision.plan_values import Observed
from modelmq.provision.private_file import write_private
from modelmq.provision.secret_files import known_secrets
from modelmq.provision.usage import counted_through
from modelmq.runtimes import scan
from modelmq.settings import Settings
from modelmq.supervisor.routes import routes_of
from modelmq.topology import build
from modelmq.topology_names import ModelRoute
from modelmq.topology_values import Topology

_DIFFERS = 2
_HOPELESS = frozenset({"broker", "vhost"})


def allowed(delete: Sequence[str] | None, replace: Sequence[str] | None, *, adopt: bool) -> Allowed:
    """What the command line lets a plan do."""
    return Allowed(remove=True, delete=frozenset(delete or ()), replace=frozenset(replace or ()), adopt=adopt)


def show_plan(settings: Settings, allowed: Allowed, *, as_json: bool, out: Path | None) -> None:
    """Prints what an apply would do, and keeps it in a file. Raises ConfigError, ProvisionError, SystemExit 2."""
    routes = _routes(settings)
    with connect(settings.broker) as management:
        seen = look(settings.broker.vhost, management)
    topology = _topology(settings, routes, seen)
    made = plan(topology, seen, _as_applied(topology, settings), allowed)
    state = saved_plan.fingerprint(topology, seen)
    _print(text.plan_json(made, topology.vhost.name, state) if as_json else text.plan_lines(made))
    if made.refusals:
        raise refused(made)
    if out is not None:
        saved_plan.save(out, topology, allowed, made, state)
    if not made.empty:
        raise SystemExit(_DIFFERS)


def show_drift(settings: Settings, *, as_json: bool) -> None:
    """Prints in what the broker differs. Raises ConfigError, ProvisionError, SystemExit 2."""
    routes = _routes(settings)
    with connect(settings.broker) as management:
        seen = look(settings.broker.vhost, management)
    topology = _topology(settings, routes, seen)
    passwords = known_secrets((user.name for user in topology.users), secrets_dir(settings))
    made = plan(topology, seen, passwords, Allowed(remove=True))
    unchecked = [user.name for user in topology.users if user.name not in passwords]
    state = saved_plan.fingerprint(topology, seen)
    if as_json:
        _print(text.plan_json(made, topology.vhost.name, state, unchecked))
    else:
        _print(text.drift_lines(made, unchecked))
    if any(refusal.kind in _HOPELESS for refusal in made.refusals):
        raise refused(made)
    if text.drifted(made):
        raise SystemExit(_DIFFERS)


def apply(settings: Settings, allowed: Allowed, *, as_json: bool, yes: bool) -> None:
    """Makes the broker equal to the topology and prints what that took. Raises ConfigError, ProvisionError."""
    routes = _routes(settings)
    with connect(settings.broker) as management:
        seen = look(settings.broker.vhost, management)
        topology = _topology(settings, routes, seen)
        made = plan(topology, seen, _as_applied(topology, settings), allowed)
        if not made.refusals and not yes:
            _agreed(text.plan_lines(made), _lost(made), "apply")
        guard = Guard(counted_through(settings))
        report = apply_to(topology, management, secrets_dir(settings), allowed=allowed, guard=guard, seen=seen)
    _print(text.report_json(report) if as_json else text.report_lines(report))


def apply_saved(settings: Settings, path: Path, *, as_json: bool) -> None:
    """Carries out a plan that was kept, if the broker is as it was. Raises ConfigError, ProvisionError."""
    saved = saved_plan.load(path)
    topology, vhost = saved.topology, saved.topology.vhost.name
    if vhost != settings.broker.vhost:
        raise ConfigError(f'The plan {path} is for the virtual host "{vhost}", not for "{settings.broker.vhost}".')
    with connect(settings.broker) as management:
        seen = look(vhost, management)
        saved_plan.check(saved, seen, plan(topology, seen, _as_applied(topology, settings), saved.allowed))
        guard = Guard(counted_through(settings))
        folder = secrets_dir(settings)
        report = apply_to(topology, management, folder, allowed=saved.allowed, guard=guard, seen=seen)
    _print(text.report_json(report) if as_json else text.report_lines(report))


def destroy(settings: Settings, delete: Sequence[str] | None, *, as_json: bool, yes: bool) -> None:
    """Takes everything that is ours from the broker. Raises ConfigError, ProvisionError."""
    routes, by_name = _routes(settings, none_is_fine=True), frozenset(delete or ())
    with connect(settings.broker) as management:
        seen = look(settings.broker.vhost, management)
        topology = _topology(settings, routes, seen)
        planned = destruction(topology, seen, by_name)
        if not yes and not planned.used:
            _agreed(text.destruction_lines(planned), [each.name for each in planned.removals], "destroy")
        target = Target(topology.vhost.name, management, {}, Guard(counted_through(settings)))
        made = destroy_on(topology, seen, by_name, target)
    _print(text.destruction_json(made) if as_json else text.destruction_lines(made))


def render(settings: Settings, broker_version: str, out: Path) -> None:
    """Writes the topology as a definitions file. Raises ConfigError, ProvisionError."""
    version = Overview(broker_version).version
    if len(version) < 2:
        raise ConfigError(f'--for takes a version of RabbitMQ such as 3.10 or 4.3, not "{broker_version}".')
    topology = build(with_generations(settings), settings.broker.vhost, _routes(settings), broker_version=version)
    passwords = secrets_of(topology, secrets_dir(settings))
    salts = {user: os.urandom(SALT_BYTES) for user in passwords}
    write_private(out, definitions(topology, passwords, salts))
    print(f"Written to {out}, for rabbitmqctl import_definitions or load_definitions.")  # noqa: T201 - as above


def _routes(settings: Settings, *, none_is_fine: bool = False) -> tuple[ModelRoute, ...]:
    catalog = scan(Path(settings.models_dir))
    for problem in catalog.problems:
        print(f"modelmq: {problem}", file=sys.stderr)  # noqa: T201 - this is the command's output
    if not catalog.models and not none_is_fine:
        raise ConfigError(f'models_dir "{settings.models_dir}" has no model; name a folder with --models.')
    return routes_of(catalog)


def _topology(settings: Settings, routes: Iterable[ModelRoute], seen: Observed) -> Topology:
    return build(with_generations(settings), settings.broker.vhost, routes, broker_version=seen.version)


def _as_applied(topology: Topology, settings: Settings) -> dict[str, str]:
    """The passwords that an apply would set; where it would make a new one, one that matches nothing."""
    users = [user.name for user in topology.users]
    return {user: secrets.token_urlsafe() for user in users} | known_secrets(users, secrets_dir(settings))


def _agreed(shown: Iterable[Text], lost: Sequence[str], command: str) -> None:
    """What is deleted is deleted for good, so somebody has to say so. Raises ProvisionError."""
    if not lost:
        return
    if sys.stdin.isatty() and sys.stdout.isatty():
        _print(shown)
        if Console().input("Do this, deletions included? [y/N] ").strip().lower() in ("y", "yes"):
            return
    names = ", ".join(lost[:3]) + (", …" if len(lost) > 3 else "")
    raise ProvisionError(
        f"Nothing was done: this deletes {len(lost)} object{'s' if len(lost) > 1 else ''} ({names}); "
        f"say modelmq topology {command} --yes if that is what you want."
    )


def _lost(made: Plan) -> list[str]:
    return [*(each.name for each in made.changes if each.action == "replace"), *(each.name for each in made.removals)]


def _print(shown: str | Iterable[Text]) -> None:
    if isinstance(shown, str):
        print(shown)  # noqa: T201 - this is the command's output
        return
    console = Console()
    for line in shown:
        console.print(line, soft_wrap=True, highlight=False)
