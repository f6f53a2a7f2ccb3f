"""`modelmq topology apply`: the models folder and the settings, made true on a broker, and what that changed."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from modelmq.broker.management import connect
from modelmq.errors import ConfigError
from modelmq.provision import ApplyReport, Change, provision
from modelmq.runtimes import scan
from modelmq.settings import Settings
from modelmq.supervisor.routes import routes_of


def apply(settings: Settings, *, as_json: bool) -> None:
    """Raises ConfigError, ProvisionError."""
    catalog = scan(Path(settings.models_dir))
    for problem in catalog.problems:
        print(f"modelmq: {problem}", file=sys.stderr)  # noqa: T201 - this is the command's output
    if not catalog.models:
        raise ConfigError(f'models_dir "{settings.models_dir}" has no model; name a folder with --models.')
    with connect(settings.broker) as management:
        report = provision(settings, routes_of(catalog), management)
    print(_json(report) if as_json else _text(report))  # noqa: T201 - as above


def _text(report: ApplyReport) -> str:
    return "\n".join([*map(_line, report.changes), str(report)])


def _line(change: Change) -> str:
    sign = "+" if change.action == "create" else "~"
    return f"{sign} {change.kind:<10} {change.name}" + (f"  ({change.why})" if change.why else "")


def _json(report: ApplyReport) -> str:
    changes = [
        {"action": change.action, "kind": change.kind, "name": change.name, "why": change.why}
        for change in report.changes
    ]
    return msgspec.json.encode({"vhost": report.topology.vhost.name, "changes": changes}).decode()
