"""Each line of the table of faults names a test that there is."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_each_fault_names_a_test_that_there_is() -> None:
    page = (ROOT / "docs" / "reliability.md").read_text("utf-8")
    table = page.partition("## Faults")[2].partition("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ")][1:]
    named = [re.search(r"`(test_\w+)` \|$", row) for row in rows]
    assert len(rows) > 10
    assert all(named), [row for row, name in zip(rows, named, strict=True) if not name]
    defined = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        defined |= set(re.findall(r"^(?:async )?def (test_\w+)\(", path.read_text("utf-8"), re.MULTILINE))
    assert {name[1] for name in named if name} - defined == set()
