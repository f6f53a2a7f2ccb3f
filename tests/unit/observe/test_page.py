"""docs/observability.md names every event and every metric there is."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from modelmq import events
from modelmq.observe import Metrics

PAGE = (Path(__file__).parents[3] / "docs" / "observability.md").read_text()
EVENTS = [name for name, each in inspect.getmembers(events, inspect.isclass) if issubclass(each, events.Event)]
METRICS = [
    line.split()[2].removeprefix("modelmq_")
    for line in Metrics("gateway").render().decode().splitlines()
    if line.startswith("# TYPE modelmq_")
]


@pytest.mark.parametrize("name", [name for name in EVENTS if name != "Event"])
def test_every_event_is_explained(name: str) -> None:
    assert f"| `{name}` |" in PAGE


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_is_explained(name: str) -> None:
    assert f"`{name}`" in PAGE
