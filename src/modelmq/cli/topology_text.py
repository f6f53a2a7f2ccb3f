"""How plans and what became of them are shown: a line for each thing, in colour for who watches, or as JSON.

Pure: values in, lines out. Does not know where they are printed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec
from rich.text import Text

from modelmq.provision import ApplyReport, Change, Plan, Removal
from modelmq.provision.destruction import Destruction
from modelmq.provision.plan_values import Kept, Refusal, Stray

_SIGNS = {"create": ("+", "green"), "update": ("~", "yellow"), "replace": ("±", "magenta"), "delete": ("-", "red")}
_TOLD = {Refusal: ("!", "bold red"), Kept: ("·", "dim"), Stray: ("?", "cyan")}


def report_lines(report: ApplyReport) -> list[Text]:
    """What an apply did."""
    return [*_done((*report.changes, *report.removals)), *_told(report.kept), Text(str(report))]


def plan_lines(made: Plan) -> list[Text]:
    """What an apply would do, and the sum of it."""
    return [*_done((*made.changes, *made.removals)), *_told((*made.kept, *made.strays, *made.refusals)), _sum(made)]


def drift_lines(made: Plan, unchecked: Iterable[str]) -> list[Text]:
    """In what the broker differs from the topology, and which passwords could not be compared."""
    lines = [*_done((*made.changes, *made.removals)), *_told((*made.kept, *made.strays, *made.refusals))]
    lines += [Text(f"· The password of {user} is not compared: there is no secret file.", "dim") for user in unchecked]
    return [*lines, Text("The broker differs from the topology." if drifted(made) else "No drift.")]


def drifted(made: Plan) -> bool:
    """Whether the broker is in any way not as it should be."""
    return not made.empty or bool(made.kept or made.strays or made.refusals)


def report_json(report: ApplyReport) -> str:
    """The same as `report_lines`, for programs."""
    told = {"vhost": report.topology.vhost.name, "changes": _entries((*report.changes, *report.removals))}
    return _json({**told, "kept": _sentences(report.kept)})


def destruction_lines(made: Destruction) -> list[Text]:
    """What a destroy takes away, and what it leaves."""
    return [*_done(made.removals), *_told(made.kept), Text(str(made))]


def destruction_json(made: Destruction) -> str:
    """The same for programs."""
    return _json({"vhost": made.vhost, "changes": _entries(made.removals), "kept": _sentences(made.kept)})


def plan_json(made: Plan, vhost: str, seen: str, unchecked: Iterable[str] = ()) -> str:
    """The same as `plan_lines`, for programs, with the hash of the state that it was made for."""
    return _json(
        {
            "vhost": vhost,
            "observed": seen,
            "changes": _entries((*made.changes, *made.removals)),
            "refusals": _sentences(made.refusals),
            "kept": _sentences(made.kept),
            "strays": _sentences(made.strays),
            "unchecked": list(unchecked),
        }
    )


def _done(each_of: Iterable[Change | Removal]) -> Iterator[Text]:
    for each in each_of:
        sign, style = _SIGNS[_action(each)]
        yield Text(f"{sign} {each.kind:<10} {each.name}" + (f"  ({each.why})" if each.why else ""), style)


def _told(each_of: Iterable[Refusal | Kept | Stray]) -> Iterator[Text]:
    for each in each_of:
        sign, style = _TOLD[type(each)]
        yield Text(f"{sign} {each.sentence}", style)


def _sum(made: Plan) -> Text:
    if made.refusals:
        return Text("This cannot be applied.")
    counts = [f"{len(made.changes)} to write"] if made.changes else []
    counts += [f"{len(made.removals)} to delete"] if made.removals else []
    return Text(f"{', '.join(counts)}." if counts else "Nothing to change.")


def _action(each: Change | Removal) -> str:
    return each.action if isinstance(each, Change) else "delete"


def _entries(each_of: Iterable[Change | Removal]) -> list[dict[str, str]]:
    return [{"action": _action(each), "kind": each.kind, "name": each.name, "why": each.why} for each in each_of]


def _sentences(each_of: Iterable[Refusal | Kept | Stray]) -> list[dict[str, str]]:
    return [{"kind": each.kind, "name": each.name, "sentence": each.sentence} for each in each_of]


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
