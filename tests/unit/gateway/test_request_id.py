from __future__ import annotations

import pytest

from modelmq.gateway.request_id import maker, trace_headers, usable


def test_made_names_are_usable_and_never_the_same() -> None:
    first, second = maker(), maker()
    names = {make() for make in (first, second) for _ in range(100)}
    assert len(names) == 200
    assert all(usable(name) == name for name in names)


@pytest.mark.parametrize("text", ["a", "r-1", "3f2b…"[:4], "x" * 128, "~!"])
def test_names_that_callers_may_give(text: str) -> None:
    assert usable(text) == text


@pytest.mark.parametrize("text", [None, "", "x" * 129, "two words", "line\nbreak", "ü", "tab\t", "end\n"])
def test_names_that_are_replaced(text: str | None) -> None:
    assert usable(text) is None


TRACE = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_only_a_valid_trace_is_passed_on() -> None:
    assert trace_headers({b"traceparent": TRACE}) == {"traceparent": TRACE.decode()}
    assert trace_headers({}) is None
    for wrong in (b"", TRACE[:-1], TRACE.upper(), TRACE + b"\n", b"x" * 55):
        assert trace_headers({b"traceparent": wrong}) is None
