"""On which line of a TOML text each key stands, which the standard parser does not tell.

Reads a text that the standard parser has already accepted, so it only has to find its way, not to judge; error
messages about settings take their line numbers from here. Knows nothing of settings.
"""

from __future__ import annotations

import re
import tomllib

Path = tuple[str, ...]

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_SPACE = re.compile(r"[ \t]*")
_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_SCALAR = re.compile(r"[^,\]}\n#]*")
# Longest quotes first. A multi-line string may end in one or two quotes of its own before the closing three.
_STRING = re.compile(
    r'"""(?:[^"\\]|\\.|"{1,2}(?!"))*"{3,5}'
    r"|'''(?:[^']|'{1,2}(?!'))*'{3,5}"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'[^'\n]*'",
    re.DOTALL,
)


def locate(text: str) -> dict[Path, int]:
    """The line (from 1) of every table and key of a valid TOML text, by full path.

    Keys inside arrays carry the array's path; where a path occurs twice the first line counts. A text that is not
    valid TOML gives the lines up to the point where it stops making sense.
    """
    return _Reader(text).document()


class _Reader:
    """A position in the text that only moves forward."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.lines: dict[Path, int] = {}

    def document(self) -> dict[Path, int]:
        table: Path = ()
        while self.skip(_BLANK) < len(self.text):
            start = self.at
            if self.text[self.at] == "[":
                table = self.header()
            else:
                self.pair(table)
            if self.at == start:  # not TOML: give up rather than loop
                break
        return self.lines

    def header(self) -> Path:
        brackets = 2 if self.text.startswith("[[", self.at) else 1
        line = self.line()
        self.at += brackets
        table = self.key()
        self.record((), table, line)
        self.at += brackets
        return table

    def pair(self, prefix: Path) -> None:
        line = self.line()
        key = self.key()
        self.record(prefix, key, line)
        self.at += 1  # the equals sign
        self.skip(_SPACE)
        self.value(prefix + key)

    def key(self) -> Path:
        parts: list[str] = []
        while True:
            self.skip(_SPACE)
            if quoted := _STRING.match(self.text, self.at):
                parts.append(_unquote(quoted.group()))
                self.at = quoted.end()
            elif bare := _BARE_KEY.match(self.text, self.at):
                parts.append(bare.group())
                self.at = bare.end()
            self.skip(_SPACE)
            if not self.text.startswith(".", self.at):
                return tuple(parts)
            self.at += 1

    def value(self, path: Path) -> None:
        if string := _STRING.match(self.text, self.at):
            self.at = string.end()
        elif self.text.startswith("[", self.at):
            self.items(path, "]")
        elif self.text.startswith("{", self.at):
            self.items(path, "}")
        else:
            self.skip(_SCALAR)

    def items(self, path: Path, closing: str) -> None:
        self.at += 1
        while self.skip(_BLANK) < len(self.text) and self.text[self.at] != closing:
            start = self.at
            if closing == "}":
                self.pair(path)
            else:
                self.value(path)
            self.skip(_BLANK)
            self.at += self.text.startswith(",", self.at)
            if self.at == start:
                break
        self.at += 1

    def record(self, prefix: Path, key: Path, line: int) -> None:
        """A dotted key also opens the tables on its way."""
        for length in range(1, len(key) + 1):
            self.lines.setdefault(prefix + key[:length], line)

    def skip(self, pattern: re.Pattern[str]) -> int:
        found = pattern.match(self.text, self.at)
        if found:
            self.at = found.end()
        return self.at

    def line(self) -> int:
        return self.text.count("\n", 0, self.at) + 1


def _unquote(quoted: str) -> str:
    try:
        return str(tomllib.loads(f"key = {quoted}")["key"])
    except tomllib.TOMLDecodeError:
        return quoted
