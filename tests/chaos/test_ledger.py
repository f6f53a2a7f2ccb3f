"""What is written is what is read, also after the writer was killed."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.chaos.ledger import Began, Confirm, Invoke, Ledger, Outcome, read, read_all
from tests.chaos.question import MARKS, Question, answer_of, body_of, expected, id_in

LINES = (
    Began(1.5, 1_700_000_000.0, 3, "http", 42, 7),
    Invoke(2.0, "c1", "fast", 1, 12.0, "crash"),
    Confirm(2.5, "c1", "confirmed"),
    Outcome(3.0, "c1", "ok", 'an "answer"\nof two lines', "gateway-0", again=True),
)


def test_lines_come_back_as_they_were(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "a")
    for line in LINES:
        ledger.add(line)
    assert list(read(tmp_path / "a")) == []
    ledger.flush()
    assert tuple(read(tmp_path / "a")) == LINES
    ledger.add(LINES[1])
    ledger.close()
    assert tuple(read(tmp_path / "a")) == (*LINES, LINES[1])


@given(kept=st.integers(0, 400))
def test_a_writer_that_is_killed_loses_its_tail_only(kept: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    whole = tmp_path_factory.mktemp("ledger") / "a"
    ledger = Ledger(whole)
    for line in LINES:
        ledger.add(line)
    ledger.close()
    whole.write_bytes(whole.read_bytes()[:kept])
    found = tuple(read(whole))
    assert found == LINES[: len(found)]
    assert len(found) == whole.read_bytes().count(b"\n")


def test_a_file_without_a_beginning_is_refused(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "a")
    ledger.add(LINES[1])
    ledger.close()
    with pytest.raises(ValueError, match="does not begin with its caller"):
        read_all([tmp_path / "a"])


def test_an_answer_says_whose_it_is() -> None:
    questions = [Question(number, model, "", 0.0) for number in (10_000_001, 10_000_002) for model in ("fast", "slow")]
    assert len({expected(each.model, each.number) for each in questions}) == 4
    body = b'{"model_name":"fast","model_version":"1","id":"c5","outputs":[{"name":"y","data":[5,77]}]}'
    assert answer_of(body) == "c5 fast 5 77"
    for bad in (b"", b"{}", b'{"model_name":"fast","outputs":[]}', b'{"model_name":"a","outputs":[{"data":[1]}]}'):
        assert answer_of(bad).startswith("unreadable")


def test_the_mark_is_what_the_model_is_told() -> None:
    assert id_in(body_of(Question(7, "fast", "hang", 0.0))) == "c7"
    assert [id_in(body) for body in (b"", b"\x82", b"[]", b"{}")] == [""] * 4
    assert body_of(Question(7, "fast", "hang", 0.0)).endswith(b'"data":[7,%d]}]}' % MARKS.index("hang"))
