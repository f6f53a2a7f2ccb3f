from __future__ import annotations

import inspect

import msgspec
import pytest

from modelmq import events

EVENTS = [each for _, each in inspect.getmembers(events, inspect.isclass) if issubclass(each, events.Event)]


@pytest.mark.parametrize("event", EVENTS)
def test_events_are_values_that_say_what_they_are(event: type[events.Event]) -> None:
    assert event.__struct_config__.frozen
    assert inspect.getdoc(event)


@pytest.mark.parametrize("event", EVENTS)
def test_events_hold_what_any_log_can_write(event: type[events.Event]) -> None:
    """Plain values only: what cannot be written as JSON would fail where nobody looks."""
    plain = (str, int, float, bool, dict[str, int])
    assert {field.name for field in msgspec.structs.fields(event) if field.type not in plain} == set()


@pytest.mark.parametrize("event", EVENTS)
def test_units_stand_in_names(event: type[events.Event]) -> None:
    numbers = {field.name for field in msgspec.structs.fields(event) if field.type is float}
    assert all(name.endswith("_s") for name in numbers)


def test_a_service_that_nobody_observes_runs_all_the_same() -> None:
    assert events.ignore(events.ModelLoaded("m", "1", 0.5)) is None
