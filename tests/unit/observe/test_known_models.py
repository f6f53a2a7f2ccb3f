from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from modelmq.observe.known_models import KnownModels


def test_a_model_nobody_serves_is_other() -> None:
    assert KnownModels().labels("invented", "7") == ("other", "")


def test_a_known_model_keeps_its_name_and_its_known_versions() -> None:
    known = KnownModels()
    known.add("digits", "1")
    assert known.labels("digits", "1") == ("digits", "1")
    assert known.labels("digits", "") == ("digits", "")
    assert known.labels("digits", "99") == ("digits", "")


@given(st.lists(st.tuples(st.text(max_size=3), st.text(max_size=3))), st.integers(0, 5))
def test_there_are_never_more_than_allowed(pairs: list[tuple[str, str]], most: int) -> None:
    known = KnownModels(most)
    for model, version in pairs:
        known.add(model, version)
    named = {known.labels(*pair) for pair in pairs} & set(pairs)
    assert len([pair for pair in named if pair[1]]) <= most
