from __future__ import annotations

import json

from modelmq.cli import topology
from modelmq.provision import ApplyReport, Change
from modelmq.settings import TopologySettings
from modelmq.topology import build
from modelmq.topology_values import Queue

WANTED = build(TopologySettings(), "ml-dev", [])
CHANGES = (
    Change("create", "queue", "ml-model.digits.bulk", Queue("ml-model.digits.bulk", "quorum")),
    Change("update", "user", "ml-gateway", WANTED.users[0], "password"),
)


def test_each_change_is_a_line() -> None:
    assert topology._text(ApplyReport(CHANGES, WANTED)).splitlines() == [
        "+ queue      ml-model.digits.bulk",
        "~ user       ml-gateway  (password)",
        "2 written: 1 queue, 1 user.",
    ]


def test_a_second_run_says_so() -> None:
    assert topology._text(ApplyReport((), WANTED)) == "Nothing to change."


def test_the_same_for_programs() -> None:
    told = json.loads(topology._json(ApplyReport(CHANGES, WANTED)))
    assert told["vhost"] == "ml-dev"
    assert told["changes"][1] == {"action": "update", "kind": "user", "name": "ml-gateway", "why": "password"}
