"""How severe each event is: the one table that decides what a log shows at which level.

Pure. An event of a type that is not listed is `info`, so a new one is seen before it is classified.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Literal

from modelmq.events import (
    BatchFinished,
    BrokerBlocked,
    BrokerConnected,
    BrokerDisconnected,
    BrokerDrained,
    BrokerHandedOver,
    BrokerHandOverFailed,
    ConsumerEnded,
    Event,
    MessageRefused,
    ModelLoaded,
    ModelLoadFailed,
    ModelProcessEnded,
    ModelSeen,
    QueueMissing,
    ReplyUnmatched,
    RequestAnswered,
    RequestFailed,
    RequestRetried,
    RequestsRefused,
    ServiceStarted,
    ServiceStopping,
    WorkDropped,
)

Level = Literal["debug", "info", "warning", "error"]
SEVERITY: Final[dict[Level, int]] = {"debug": 0, "info": 1, "warning": 2, "error": 3}

_CALLERS_FAULT = frozenset({"invalid", "not_found", "too_large", "unsupported", "cancelled"})


def _answered(event: Any) -> Level:
    """Refusals for overload come by the thousand, and are told once a second instead."""
    return "debug" if event.code == "overloaded" else _by_code(event)


def _by_code(event: Any) -> Level:
    """Success is told by metrics; a caller's mistake is news for the caller, the rest for the operator."""
    if event.code == "ok":
        return "debug"
    return "info" if event.code in _CALLERS_FAULT else "warning"


_LEVELS: Final[dict[type[Event], Level | Callable[[Any], Level]]] = {
    ServiceStarted: "info",
    ServiceStopping: "info",
    BrokerConnected: "info",
    BrokerDisconnected: "warning",
    BrokerHandedOver: "info",
    BrokerHandOverFailed: "warning",
    BrokerDrained: "info",
    BrokerBlocked: lambda event: "warning" if event.blocked else "info",
    RequestAnswered: _answered,
    RequestsRefused: "warning",
    MessageRefused: "info",
    BatchFinished: "debug",
    RequestFailed: _by_code,
    RequestRetried: "info",
    WorkDropped: "debug",
    ModelLoaded: "info",
    ModelLoadFailed: "error",
    ModelProcessEnded: "warning",
    QueueMissing: "warning",
    ConsumerEnded: "warning",
    ModelSeen: lambda event: "warning" if event.state == "failed" else "info",
    ReplyUnmatched: "debug",
}


def level_of(event: Event) -> Level:
    """The level this event is logged at."""
    level = _LEVELS.get(type(event), "info")
    return level if isinstance(level, str) else level(event)
