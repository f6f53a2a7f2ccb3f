from __future__ import annotations

import pytest

from modelmq.broker.management_values import Overview, UserInfo


@pytest.mark.parametrize(
    ("text", "version"), [("3.10.8", (3, 10, 8)), ("4.0.5+1.gabc", (4, 0, 5)), ("4.3.0-rc.1", (4, 3, 0)), ("odd", ())]
)
def test_versions(text: str, version: tuple[int, ...]) -> None:
    assert Overview(text).version == version


@pytest.mark.parametrize("tags", ["monitoring, management", ("monitoring", "management")])
def test_tags_are_a_list_or_a_text(tags: str | tuple[str, ...]) -> None:
    assert UserInfo("u", tags).tag_set == {"monitoring", "management"}
    assert UserInfo("u").tag_set == UserInfo("u", "").tag_set == frozenset()


def test_a_hash_is_not_shown() -> None:
    assert "the hash" not in repr(UserInfo("u", password_hash="the hash"))
