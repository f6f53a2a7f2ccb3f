"""docs/worker.md tells the headers of a dead letter as they are."""

from __future__ import annotations

import re

from modelmq.amqp import Properties
from modelmq.worker.dead_letter import copy_of
from modelmq.worker.outcome import Answer, Outcome
from modelmq.worker.parts import Part
from tests.docs.pages import ROOT

PAGE = (ROOT / "docs" / "worker.md").read_text("utf-8")
TYPES = {"text": str, "whole number": int}


def test_the_headers_of_a_dead_letter_are_told() -> None:
    table = PAGE[PAGE.index("| header | type | holds |") :].split("\n\n")[0]
    told = dict(re.findall(r"^\| `([\w-]+)` \| ([\w ]+) \|", table, re.MULTILINE))
    answer = Answer(Outcome.DEAD, b"", "dead", "x" * 5000, 3)
    before = Properties(headers={"too large": "x" * 70_000, "x-delivery-count": 2})
    headers = dict(copy_of(Part(1, False, "m", before, b"", 0), answer, 0.0).properties.headers or {})
    assert {name: type(value) for name, value in headers.items()} == {name: TYPES[kind] for name, kind in told.items()}
    assert f"`{headers['reason']}`" in table
    assert f"at most {len(str(headers['error']))} characters" in table
