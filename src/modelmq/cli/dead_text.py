"""How dead letters and what became of them are shown: tables and lines for people, JSON for programs.

Pure: values in, lines out. What callers wrote may hold anything, so nothing of it is read as markup or control.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
from rich.table import Table
from rich.text import Text

from modelmq.dead_letters.desk import Listing, Replayed, Shown
from modelmq.dead_letters.letter import Letter, queue_of
from modelmq.messages import JSON

_LONGEST_ERROR = 80
_HEX_BYTES = 256
_UNITS = (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1))
_HEADS = ("LETTER", "REASON", "AGE", "DEADLINE", "ATTEMPTS", "KEY", "REQUEST", "BYTES", "ERROR")
_NUMBERS = frozenset({"AGE", "ATTEMPTS", "BYTES"})

Line = Text | Table


def listing(found: Mapping[str, Listing], now_ms: int) -> list[Line]:
    """A table of all that was picked, and what else there is."""
    shown = [letter for each in found.values() for letter in each.letters]
    lines: list[Line] = [_table(shown, now_ms)] if shown else []
    for place, each in found.items():
        more = each.matched - len(each.letters)
        if more:
            lines.append(Text(f"{letters(more)} more of {place}: say --limit {each.matched}."))
        if each.total > each.matched:
            lines.append(Text(f"{letters(each.total - each.matched)} of {place} left out by the filters."))
    return lines or [Text("No dead letters.")]


def listing_json(found: Mapping[str, Listing]) -> str:
    """The same for programs."""
    return _json(
        {
            "places": [
                {
                    "place": place,
                    "queue": queue_of(place),
                    "total": each.total,
                    "matched": each.matched,
                    "letters": [_plain(msgspec.structs.asdict(letter)) for letter in each.letters],
                }
                for place, each in found.items()
            ]
        }
    )


def shown(found: Shown, now_ms: int) -> list[Line]:
    """One letter whole."""
    letter = found.letter
    rows = {
        "letter": letter.id,
        "queue": queue_of(letter.place),
        "reason": letter.reason,
        "error": letter.error,
        "attempts": _or_dash(letter.attempts),
        "died": _moment(letter.died_at_ms, now_ms),
        "deadline": _moment(letter.deadline_ms, now_ms),
        "key": letter.routing_key,
        "request": letter.request_id,
        "requests": str(letter.requests) if letter.requests > 1 else "",
        "replays": str(letter.replays or ""),
    }
    properties = _properties(found)
    lines: list[Line] = [Text(f"{name:<10} {_clean(value)}") for name, value in rows.items() if value]
    lines += [Text(""), *(Text(f"{name:<16} {_clean(str(value))}") for name, value in properties.items())]
    lines += [Text(f"header {_clean(name)}: {_clean(_json(value))}") for name, value in _headers(found).items()]
    body = _decoded(found)
    if body is not None:
        text = msgspec.json.format(msgspec.json.encode(body), indent=2).decode()
        return [*lines, Text(""), Text(_clean(text, keep="\n"))]
    data = found.body[:_HEX_BYTES]
    more = f" …, {letter.body_bytes} bytes" if letter.body_bytes > len(data) else ""
    return [*lines, Text(""), Text(f"{data.hex(' ')}{more}" if letter.body_bytes else "(no body)")]


def shown_json(found: Shown) -> str:
    """The same for programs; a body that is no JSON in base64."""
    body = _decoded(found)
    kept: dict[str, Any] = (
        {"body": body} if body is not None else {"body_base64": base64.b64encode(found.body).decode()}
    )
    letter = _plain(msgspec.structs.asdict(found.letter))
    return _json({"letter": letter, "properties": _properties(found), "headers": _headers(found), **kept})


def replayed(done: Mapping[str, Replayed], *, dry_run: bool) -> list[Line]:
    """What left, and what stays and why."""
    lines: list[Line] = []
    for place, became in done.items():
        verb = "Would replay" if dry_run else "Replayed"
        requests = "" if became.requests == became.letters else f" ({became.requests} requests)"
        lines.append(Text(f"{verb} {letters(became.letters)} of {place}{requests}."))
        lines += [Text(f"! Kept {letters(count)} of {place}: {why}.") for why, count in became.kept.items()]
    return lines


def replayed_json(done: Mapping[str, Replayed]) -> str:
    """The same for programs."""
    return _json(
        {
            "replayed": [
                {
                    "place": place,
                    "letters": became.letters,
                    "requests": became.requests,
                    "kept": [{"why": why, "letters": count} for why, count in became.kept.items()],
                }
                for place, became in done.items()
            ]
        }
    )


def purged(done: Mapping[str, int]) -> list[Line]:
    """How many are gone."""
    return [Text(f"Purged {counted(done)}." if done else "No letter fits: nothing was purged.")]


def purged_json(done: Mapping[str, int]) -> str:
    """The same for programs."""
    return _json({"purged": [{"place": place, "letters": count} for place, count in done.items()]})


def counted(counts: Mapping[str, int]) -> str:
    """In words."""
    return ", ".join(f"{letters(count)} of {place}" for place, count in counts.items())


def letters(count: int) -> str:
    """In words."""
    return f"{count} letter" + ("" if count == 1 else "s")


def _table(shown: Iterable[Letter], now_ms: int) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
    for head in _HEADS:
        table.add_column(head, no_wrap=True, overflow="ignore", justify="right" if head in _NUMBERS else "left")
    for letter in shown:
        error = letter.error if len(letter.error) <= _LONGEST_ERROR else letter.error[: _LONGEST_ERROR - 1] + "…"
        request = letter.request_id or "-"
        row = (
            letter.id,
            letter.reason,
            "-" if letter.died_at_ms is None else _span((now_ms - letter.died_at_ms) / 1000),
            _deadline(letter.deadline_ms, now_ms),
            _or_dash(letter.attempts),
            letter.routing_key,
            request,
            str(letter.body_bytes),
            error,
        )
        table.add_row(*(Text(_clean(cell)) for cell in row))
    return table


def _span(seconds: float) -> str:
    """Two units at most: 45s, 2m 5s, 3h, 2d 4h."""
    left = max(int(seconds), 0)
    for (unit, size), (smaller, its_size) in zip(_UNITS, (*_UNITS[1:], ("", 1)), strict=True):
        if left >= size:
            rest = left % size // its_size
            return f"{left // size}{unit}" + (f" {rest}{smaller}" if rest else "")
    return "0s"


def _deadline(deadline_ms: int | None, now_ms: int) -> str:
    if deadline_ms is None:
        return "-"
    left_s = (deadline_ms - now_ms) / 1000
    return f"in {_span(left_s)}" if left_s > 0 else "passed"


def _moment(at_ms: int | None, now_ms: int) -> str:
    if at_ms is None:
        return "-"
    away_s = (now_ms - at_ms) / 1000
    try:
        time = datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return str(at_ms)
    return f"{time} ({_span(away_s)} ago)" if away_s >= 0 else f"{time} (in {_span(-away_s)})"


def _or_dash(value: int | None) -> str:
    return "-" if value is None else str(value)


def _decoded(found: Shown) -> Any:
    """The body as JSON where it is; None where not."""
    if found.letter.content_type not in ("", JSON) or not found.body:
        return None
    try:
        return msgspec.json.decode(found.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _properties(found: Shown) -> dict[str, Any]:
    given = msgspec.structs.asdict(found.properties)
    return {name: _plain(value) for name, value in given.items() if value is not None and name != "headers"}


def _headers(found: Shown) -> dict[str, Any]:
    return {_plain(name): _plain(value) for name, value in (found.properties.headers or {}).items()}


def _plain(value: Any) -> Any:
    """What JSON can hold of what AMQP can."""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    if isinstance(value, dict):
        return {_plain(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, bytes):
        return value.hex(" ")
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%dT%H:%M:%SZ")
    return value if isinstance(value, int | float | None) else str(value)


def _clean(text: str, keep: str = "") -> str:
    """Without what a terminal would obey."""
    plain: str = _plain(text)
    return "".join(
        letter if letter.isprintable() or letter in keep else "\N{REPLACEMENT CHARACTER}" for letter in plain
    )


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
