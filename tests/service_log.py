"""The log of a service that is running, as the tests read it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def lines_of(log: Path) -> list[dict[str, Any]]:
    """Its events so far. The last line may be half written; it is there the next time."""
    whole, _, _ = log.read_text().rpartition("\n")
    return [json.loads(line) for line in whole.splitlines() if line.startswith("{")]
