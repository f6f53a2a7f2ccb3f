from __future__ import annotations

import json
from collections import Counter

import pytest

from modelmq.amqp import Properties
from modelmq.cli import dead_text as text
from modelmq.dead_letters.desk import Listing, Replayed, Shown
from modelmq.dead_letters.letter import Letter

LETTER = Letter(id="m:1", place="m", routing_key="m", reason="r", body_bytes=3, content_type="application/json")


@pytest.mark.parametrize(
    ("seconds", "words"), [(-1, "0s"), (0.9, "0s"), (59, "59s"), (125, "2m 5s"), (3600, "1h"), (187_200, "2d 4h")]
)
def test_spans(seconds: float, words: str) -> None:
    assert text._span(seconds) == words


def test_what_is_not_shown_is_counted() -> None:
    lines = text.listing({"m": Listing((LETTER,), 3, 7)}, 0)
    assert [str(line) for line in lines[1:]] == [
        "2 letters more of m: say --limit 3.",
        "4 letters of m left out by the filters.",
    ]
    assert [str(line) for line in text.listing({"m": Listing((), 0, 0)}, 0)] == ["No dead letters."]


def test_a_callers_words_cannot_command_a_terminal() -> None:
    found = Shown(LETTER, Properties(headers={"\x1b[2J": "\x07", "s": "\udcff"}), b'"\\u001b[31m"')
    shown = "".join(str(line) for line in text.shown(found, 0))
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert json.loads(text.shown_json(found))["body"] == "\x1b[31m"


@pytest.mark.parametrize("deep", [900, 5000, 100_000])
def test_a_body_nested_however_deep(deep: int) -> None:
    found = Shown(LETTER, Properties(), b"[" * deep + b"]" * deep)
    last = str(text.shown(found, 0)[-1])
    assert last.startswith("[\n  [" if deep == 900 else "5b 5b")
    assert json.loads(text.shown_json(found)).keys() >= {"body" if deep == 900 else "body_base64"}


def test_a_body_that_is_no_json() -> None:
    found = Shown(LETTER, Properties(), b"\xff\x00{")
    assert str(text.shown(found, 0)[-1]) == "ff 00 7b"
    assert json.loads(text.shown_json(found))["body_base64"] == "/wB7"


def test_what_stays_is_told_with_its_reason() -> None:
    done = {"m": Replayed(2, 5, Counter({"it is late": 1}))}
    assert [str(line) for line in text.replayed(done, dry_run=False)] == [
        "Replayed 2 letters of m (5 requests).",
        "! Kept 1 letter of m: it is late.",
    ]
