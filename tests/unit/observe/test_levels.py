from __future__ import annotations

import inspect

import pytest

from modelmq import events
from modelmq.errors import REQUEST_ERRORS
from modelmq.events import BrokerBlocked, Event, ModelSeen, RequestAnswered
from modelmq.observe.levels import _LEVELS, level_of

EVENTS = [each for _, each in inspect.getmembers(events, inspect.isclass) if issubclass(each, Event) and each != Event]


def answered(code: str) -> RequestAnswered:
    return RequestAnswered("r", "m", "1", code, 0.1)


def test_every_event_is_in_the_table() -> None:
    assert set(_LEVELS) == set(EVENTS)


def test_success_is_quiet() -> None:
    assert level_of(answered("ok")) == "debug"


@pytest.mark.parametrize("code", sorted(REQUEST_ERRORS))
def test_what_is_the_callers_fault_is_news_and_the_rest_a_warning(code: str) -> None:
    callers = {"invalid", "not_found", "too_large", "unsupported", "cancelled"}
    by_the_thousand = {"overloaded": "debug"}  # and summed up once a second
    assert level_of(answered(code)) == by_the_thousand.get(code, "info" if code in callers else "warning")


def test_states_decide() -> None:
    assert level_of(BrokerBlocked("gateway", True)) == "warning"
    assert level_of(BrokerBlocked("gateway", False)) == "info"
    assert level_of(ModelSeen("m", "1", "failed")) == "warning"
    assert level_of(ModelSeen("m", "1", "ready")) == "info"


def test_an_unknown_event_is_seen() -> None:
    class Odd(Event, frozen=True):
        pass

    assert level_of(Odd()) == "info"
