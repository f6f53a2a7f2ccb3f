"""The ledger: what every caller asked and what became of it, one JSON line each.

Written by the callers, one file per process, buffered and written out every tenth of a second: a caller that is killed
loses its own tail and nobody else's. Times are of CLOCK_MONOTONIC, which all processes of a machine share.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

import msgspec

CallerKind = Literal["http", "client", "pika"]

OK = "ok"
UNKNOWN = "unknown"
"""The connection to the gateway was lost before an answer came."""
NONE = "none"
"""No answer came; the caller has given up, long after the deadline."""
WITHDRAWN = "withdrawn"
"""The caller went away on purpose, and waits for nothing."""

Settled = Literal["confirmed", "nacked", "returned", "lost"]
"""What a producer learns of a publish; lost: its connection ended first, and the broker may have it or not."""


class Began(msgspec.Struct, frozen=True, tag="began", tag_field="what", gc=False):
    """The first line of a file."""

    at: float
    unix_s: float
    caller: int
    kind: CallerKind
    pid: int
    seed: int


class Invoke(msgspec.Struct, frozen=True, omit_defaults=True, tag="invoke", tag_field="what", gc=False):
    """A request that was sent, or is about to be. `deadline` is on the clock of `at`."""

    at: float
    id: str
    model: str
    payload: int
    """The number that the model is asked about, which no other request of the run has."""
    deadline: float
    mark: str = ""
    """What is wrong with the request, on purpose; empty for the innocent."""


class Confirm(msgspec.Struct, frozen=True, tag="confirm", tag_field="what", gc=False):
    """A producer's publish was settled."""

    at: float
    id: str
    settled: Settled


class Outcome(msgspec.Struct, frozen=True, omit_defaults=True, tag="outcome", tag_field="what", gc=False):
    """The caller was answered, or is certain that it will not be."""

    at: float
    id: str
    code: str
    """`ok`, a code of the message contract, or one of the words above."""
    answer: str = ""
    """With `ok`: what the answer says, as `question.answer_of` tells it."""
    via: str = ""
    """The gateway that was asked; empty for who asks the broker."""
    again: bool = False
    """A reply whose id had one before. Only plain AMQP callers may see that."""


class Stray(msgspec.Struct, frozen=True, tag="stray", tag_field="what", gc=False):
    """Bytes or a reply that belong to no request of this caller."""

    at: float
    via: str
    said: str


class Ended(msgspec.Struct, frozen=True, tag="ended", tag_field="what", gc=False):
    """The last line of a caller that ended in order. `skipped` were never asked, as too much was under way already."""

    at: float
    asked: int
    skipped: int
    longest_pause_s: float
    """The longest time for which the caller's own loop did not run: what it calls late may be late by that."""
    given_up: int = 0
    """Consumers that heard nothing though answers were due."""


Line = Began | Invoke | Confirm | Outcome | Stray | Ended

_encode = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder(Line)


class Ledger:
    """One file, open for appending."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)
        self._lines: list[bytes] = []

    def add(self, line: Line) -> None:
        """Keep it; `flush` writes it out."""
        self._lines.append(_encode(line))

    def flush(self) -> None:
        """Everything added so far, in one write."""
        if self._lines:
            lines, self._lines = self._lines, []
            self._file.write(b"\n".join(lines) + b"\n")

    def close(self) -> None:
        """The rest, then the file."""
        self.flush()
        self._file.close()


def read(path: Path) -> Iterator[Line]:
    """The lines of a file; the last one is left out where its writer was killed within it."""
    with path.open("rb") as file:
        for raw in file:
            if not raw.endswith(b"\n"):
                return
            yield _decoder.decode(raw)


def read_all(paths: Iterable[Path]) -> list[tuple[CallerKind, list[Line]]]:
    """The histories of all callers. Raises ValueError for a file that does not tell who wrote it."""
    found = []
    for path in paths:
        lines = list(read(path))
        if not lines or not isinstance(lines[0], Began):
            raise ValueError(f"{path} does not begin with its caller.")
        found.append((lines[0].kind, lines))
    return found
