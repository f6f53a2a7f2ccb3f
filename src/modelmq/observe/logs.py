"""Events as log lines: one JSON object or one readable line each, never more than one line per event.

A subscriber of `fan_out`. Values are escaped, so nothing a caller sends can forge a line. Does not rotate files and
knows nothing of what the events mean; their levels are in `levels`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

import msgspec

from modelmq.events import Emit, Event
from modelmq.observe.levels import SEVERITY, Level, level_of

_PLAIN = re.compile(r"[\w./:@+,;()%-]+\Z", re.ASCII)
_LONGEST_TEXT = 2000
"""Characters of one field that are written: an error text may quote a caller's whole body."""

Clock = Callable[[], datetime]


def _now() -> datetime:
    return datetime.now(UTC)


class JsonLog:
    """One JSON object per line: `time` (ISO 8601, UTC), `level`, `service`, `event`, then the event's own fields."""

    def __init__(self, stream: TextIO, level: Level, service: str, clock: Clock = _now) -> None:
        self._stream = stream
        self._least = SEVERITY[level]
        self._service = service
        self._clock = clock

    def __call__(self, event: Event) -> None:
        """Write the event's line, unless it is below the log's level."""
        level = level_of(event)
        if SEVERITY[level] < self._least:
            return
        head = {"time": _stamp(self._clock()), "level": level, "service": self._service, "event": type(event).__name__}
        _write(self._stream, _json(head | {name: value for name, value in _fields(event) if name not in head}))


class TextLog:
    """One line for people: time (UTC), level, service, event, `field=value` …"""

    def __init__(self, stream: TextIO, level: Level, service: str, clock: Clock = _now) -> None:
        self._stream = stream
        self._least = SEVERITY[level]
        self._service = service
        self._clock = clock

    def __call__(self, event: Event) -> None:
        """Write the event's line, unless it is below the log's level."""
        level = level_of(event)
        if SEVERITY[level] < self._least:
            return
        fields = " ".join(f"{name}={_shown(value)}" for name, value in _fields(event) if name != "service")
        head = f"{_stamp(self._clock())} {level.upper():<7} {self._service:<8} {type(event).__name__}"
        _write(self._stream, f"{head} {fields}".rstrip())


def open_log(stream: TextIO, level: Level, form: Literal["json", "text"], service: str) -> Emit:
    """The log of the settings' `log.format` and `log.level`."""
    return JsonLog(stream, level, service) if form == "json" else TextLog(stream, level, service)


def _fields(event: Event) -> list[tuple[str, Any]]:
    return [(name, _tidy(getattr(event, name))) for name in event.__struct_fields__]


def _tidy(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, str) and len(value) > _LONGEST_TEXT:
        return value[:_LONGEST_TEXT] + "…"
    return value


def _json(fields: dict[str, Any]) -> str:
    try:
        return msgspec.json.encode(fields).decode()
    except (msgspec.ValidationError, UnicodeEncodeError, TypeError):
        # A lone surrogate out of a caller's JSON, or a type msgspec does not know.
        return json.dumps(fields, default=str)


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else _json(value) if isinstance(value, dict) else str(value)
    return text if _PLAIN.match(text) else json.dumps(text)


def _stamp(time: datetime) -> str:
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _write(stream: TextIO, line: str) -> None:
    """In one piece, so lines of threads and processes that share the stream do not mix."""
    stream.write(line + "\n")
    stream.flush()
