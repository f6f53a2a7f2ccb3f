"""Which requests are accepted, and until when their callers wait. Pure.

Stands between the route and the message. What is predicted of a model is backlog's; the broker's own refusals
(unroutable, full queue) come later, and are not known here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec

from modelmq.errors import InvalidRequest, Overloaded, Unavailable
from modelmq.settings import Settings

TIMEOUT_HEADER = "Inference-Timeout-Ms"
TIMEOUT_PARAMETER = "timeout"
"""Of the protocol's parameters; microseconds, 0 means none."""
_RETRY_AFTER_S = 1.0
_LONGEST_RETRY_AFTER_S = 60
_USABLE = 0.8
_SLACK_S = 0.4
_LEAST_USABLE = 0.5
PLACES_PER_FREE_PLACE = 8
"""A model may hold so many times the places that are free: however slow it is, others find some."""


class Rules(msgspec.Struct, frozen=True):
    """The bounds of one gateway."""

    max_in_flight: int
    default_timeout_s: float
    max_timeout_s: float
    """The broker clears a request that waits longer."""


def rules_of(settings: Settings) -> Rules:
    """As the settings say."""
    gateway = settings.gateway
    return Rules(gateway.max_in_flight, gateway.default_timeout_s, settings.topology.message_ttl_s)


def admit(in_flight: int, of_model: int, why_not: str | None, rules: Rules) -> None:
    """Raises Overloaded, or Unavailable with `why_not`, which is what the registry has against the model.

    `of_model` of those in flight are for the model that is asked.
    """
    free = rules.max_in_flight - in_flight
    if free <= 0:
        raise Overloaded(
            f"This gateway answers {rules.max_in_flight} requests already (gateway.max_in_flight); ask again later.",
            retry_after_s=_RETRY_AFTER_S,
        )
    if of_model >= PLACES_PER_FREE_PLACE * free:
        raise Overloaded(
            f"{of_model} requests for this model wait already, and the other places of this gateway "
            "(gateway.max_in_flight) are kept for others; ask again later.",
            retry_after_s=_RETRY_AFTER_S,
        )
    if why_not is not None:
        raise Unavailable(why_not, retry_after_s=_RETRY_AFTER_S)


def usable_s(left_s: float) -> float:
    """Of the time to its deadline, what a request may be predicted to take: no prediction is exact, and no machine
    always on time. Four fifths, less where that leaves no slack.
    """
    return min(_USABLE * left_s, max(left_s - _SLACK_S, _LEAST_USABLE * left_s))


def in_time(model: str, predicted_s: float, left_s: float) -> None:
    """Raises Overloaded where the answer is predicted to take longer than its caller waits."""
    too_late_s = predicted_s - usable_s(left_s)
    if too_late_s > 0:
        seconds = math.ceil(min(max(too_late_s, 1.0), _LONGEST_RETRY_AFTER_S))
        raise Overloaded(
            f"Model {model} would take about {_shown(predicted_s)} s to answer, and the request has "
            f"{_shown(left_s)} s; allow more time or ask again later.",
            retry_after_s=float(seconds),
        )


def _shown(seconds: float) -> str:
    return f"{seconds:.0f}" if seconds >= 10 else f"{seconds:.2g}"


def timeout_s(
    parameters: Mapping[str, object], header: bytes | None, models_own_s: float | None, rules: Rules
) -> float:
    """How long the caller waits: the shorter of parameter and header, else as the model says, else the default.

    Raises InvalidRequest.
    """
    asked = []
    if TIMEOUT_PARAMETER in parameters:
        asked.append(_microseconds(parameters[TIMEOUT_PARAMETER]))
    if header is not None:
        asked.append(_milliseconds(header))
    wanted = [seconds for seconds in asked if seconds > 0]
    if not wanted:
        wanted = [rules.default_timeout_s if models_own_s is None else models_own_s]
    return min(*wanted, rules.max_timeout_s)


def _microseconds(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InvalidRequest(f'The parameter "{TIMEOUT_PARAMETER}" must be a whole number of microseconds, 0 or more.')
    return min(value, 10**15) / 1e6


def _milliseconds(header: bytes) -> float:
    if not header.isdigit() or len(header) > 15:
        raise InvalidRequest(f"The header {TIMEOUT_HEADER} must be a whole number of milliseconds, 0 or more.")
    return int(header) / 1e3
