from __future__ import annotations

import json

from modelmq.cli import topology_text as text
from modelmq.provision import ApplyReport, Change, Kept, Plan, Refusal, Removal, Stray
from modelmq.settings import TopologySettings
from modelmq.topology import build
from modelmq.topology_values import Queue

WANTED = build(TopologySettings(), "ml-dev", [])
QUEUE = Queue("ml-model.digits.bulk", "quorum")
CHANGES = (
    Change("create", "queue", QUEUE.name, QUEUE),
    Change("update", "user", "ml-gateway", WANTED.users[0], "password"),
)
REMOVED = (Removal("queue", "old"),)
KEPT = (Kept("queue", "full", "The queue stays."),)


def plain(lines: list[text.Text]) -> list[str]:
    return [line.plain for line in lines]


def test_each_change_is_a_line() -> None:
    assert plain(text.report_lines(ApplyReport(CHANGES, WANTED, REMOVED, KEPT))) == [
        "+ queue      ml-model.digits.bulk",
        "~ user       ml-gateway  (password)",
        "- queue      old",
        "· The queue stays.",
        "2 written: 1 queue, 1 user; 1 deleted: 1 queue.",
    ]
    assert plain(text.report_lines(ApplyReport((), WANTED))) == ["Nothing to change."]


def test_a_plan_is_the_same_with_its_sum() -> None:
    replaced = Change("replace", "queue", QUEUE.name, QUEUE, "x-queue-type classic -> quorum")
    made = Plan(changes=(*CHANGES, replaced), removals=REMOVED, strays=(Stray("policy", "p", "It wins."),))
    assert plain(text.plan_lines(made))[2:] == [
        "± queue      ml-model.digits.bulk  (x-queue-type classic -> quorum)",
        "- queue      old",
        "? It wins.",
        "3 to write, 1 to delete.",
    ]
    assert plain(text.plan_lines(Plan())) == ["Nothing to change."]
    refused = Plan(changes=CHANGES, refusals=(Refusal("queue", "q", "It cannot be."),))
    assert plain(text.plan_lines(refused))[-2:] == ["! It cannot be.", "This cannot be applied."]


def test_names_are_not_taken_for_markup() -> None:
    (line, _) = text.plan_lines(Plan(removals=(Removal("queue", "[red]"),)))
    assert line.plain == "- queue      [red]"


def test_drift_is_anything_that_is_not_as_it_should_be() -> None:
    assert plain(text.drift_lines(Plan(), [])) == ["No drift."]
    assert plain(text.drift_lines(Plan(), ["ml-client"])) == [
        "· The password of ml-client is not compared: there is no secret file.",
        "No drift.",
    ]
    for made in (
        Plan(changes=CHANGES),
        Plan(removals=REMOVED),
        Plan(kept=KEPT),
        Plan(strays=(Stray("policy", "p", "It wins."),)),
        Plan(refusals=(Refusal("queue", "q", "It cannot be."),)),
    ):
        assert text.drifted(made)
        assert plain(text.drift_lines(made, []))[-1] == "The broker differs from the topology."


def test_the_same_for_programs() -> None:
    told = json.loads(text.report_json(ApplyReport(CHANGES, WANTED, REMOVED, KEPT)))
    assert told["vhost"] == "ml-dev"
    assert told["changes"][1:] == [
        {"action": "update", "kind": "user", "name": "ml-gateway", "why": "password"},
        {"action": "delete", "kind": "queue", "name": "old", "why": ""},
    ]
    assert told["kept"] == [{"kind": "queue", "name": "full", "sentence": "The queue stays."}]
    made = Plan(changes=CHANGES, refusals=(Refusal("queue", "q", "It cannot be."),))
    told = json.loads(text.plan_json(made, "ml-dev", "hash", ["ml-client"]))
    assert (told["observed"], told["unchecked"], told["strays"]) == ("hash", ["ml-client"], [])
    assert told["refusals"][0]["sentence"] == "It cannot be."
