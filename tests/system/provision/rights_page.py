"""Reads the hand-written page of rights: which cells it has, and what stands in them."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

PAGE = Path(__file__).with_name("rights.txt")


class Page(NamedTuple):
    """What the page says of one reply mode."""

    users: tuple[str, ...]
    cells: dict[tuple[str, str, str], str]
    """The letters of a cell, by kind (`exchange`, `queue`, `new`), name and user."""
    ways: set[tuple[str, str, str, str]]
    """`bind` or `dead-letter`, the user, from where, to where."""

    def names(self, kind: str) -> list[str]:
        """In the order of the page."""
        return list(dict.fromkeys(name for of, name, _ in self.cells if of == kind))


def read(mode: str) -> Page:
    """The section of this reply mode."""
    users: tuple[str, ...] = ()
    cells: dict[tuple[str, str, str], str] = {}
    ways = set()
    for line in PAGE.read_text().split(f"\n[{mode}]")[1].split("\n[")[0].splitlines():
        match line.split():
            case []:
                continue
            case [kind, user, source, "->", destination]:
                ways.add((kind, user, source, destination))
            case [row, *letters] if ":" in row:
                kind, _, name = row.partition(":")
                cells |= {(kind, name, user): cell.strip(".") for user, cell in zip(users, letters, strict=True)}
            case names:
                users = tuple(names)
    return Page(users, cells, ways)
