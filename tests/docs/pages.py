"""What the pages say: their fenced blocks, the commands in them, the output shown, the links."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")])
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_PROGRAMS = ("make ", "modelmq ", ".venv/bin/modelmq ", ".venv/bin/python ", "curl ", "eval ", "python ", "python3 ")


@dataclass(frozen=True)
class Block:
    """A fenced block; `language` is empty where the page names none."""

    language: str
    text: str


@dataclass(frozen=True)
class Command:
    """One command. `shown` is the output that the page shows, None where it shows none."""

    text: str
    shown: str | None


def blocks(page: str) -> list[Block]:
    return [Block(language, text) for language, text in _FENCE.findall((ROOT / page).read_text("utf-8"))]


def commands(page: str) -> list[Command]:
    """In the order of the page: with output from `console` blocks, without from the others."""
    found: list[Command] = []
    for block in blocks(page):
        if block.language == "console":
            found += _with_output(block.text)
        elif block.language in ("", "sh"):
            lines = block.text.replace("\\\n", " ").splitlines()
            found += [Command(line, None) for line in lines if line.startswith(_PROGRAMS)]
    return found


def _with_output(text: str) -> list[Command]:
    parts = re.split(r"^\$ ", text.replace("\\\n", " "), flags=re.MULTILINE)[1:]
    return [Command(command, shown) for command, _, shown in (part.partition("\n") for part in parts)]


def links(page: str) -> list[str]:
    """Where a page points to within the project."""
    prose = _FENCE.sub("", (ROOT / page).read_text("utf-8"))
    return [target for target in _LINK.findall(prose) if "://" not in target and not target.startswith("#")]


def plain(output: str) -> str:
    """Without what differs from run to run or from broker to broker: fractions, ports, passwords, ids, counts."""
    text = re.sub(r"://([^:@/\s]+):[^@\s]+@", r"://\1:#@", output)
    text = re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:#", text)
    text = re.sub(r'"id":\s*"[^"]*"', '"id":"#"', text)
    text = re.sub(r"\d+ (written|binding|exchange|permission|policy|queue|user|vhost)\b", r"# \1", text)
    text = re.sub(r"\d+((\.\d+)+(e-?\d+)?|e-?\d+)", "#", text)
    return "\n".join(line.rstrip() for line in text.strip().splitlines())
