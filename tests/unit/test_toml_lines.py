from __future__ import annotations

import tomllib

import pytest

from modelmq.toml_lines import locate

DOCUMENT = '''\
title = "a # no comment"  # a comment
"quoted key" = 1
a.b.c = 2

[table]
text = """
not = "a key"
# nor a comment
""""
list = [
  1,  # [not.a.table]
  { inner = 3 },
]
after = 1

[table.'dotted.name']
x = { y = 1, z = { deep = 2 } }

[[items]]
name = "first"
[[items]]
name = "second"
'''


def test_keys_and_tables_are_found_where_they_stand() -> None:
    assert locate(DOCUMENT) == {
        ("title",): 1,
        ("quoted key",): 2,
        ("a",): 3,
        ("a", "b"): 3,
        ("a", "b", "c"): 3,
        ("table",): 5,
        ("table", "text"): 6,
        ("table", "list"): 10,
        ("table", "list", "inner"): 12,
        ("table", "after"): 14,
        ("table", "dotted.name"): 16,
        ("table", "dotted.name", "x"): 17,
        ("table", "dotted.name", "x", "y"): 17,
        ("table", "dotted.name", "x", "z"): 17,
        ("table", "dotted.name", "x", "z", "deep"): 17,
        ("items",): 19,
        ("items", "name"): 20,
    }


@pytest.mark.parametrize("quote", ['"', "'"])
@pytest.mark.parametrize("more", range(3))
def test_a_multi_line_text_may_end_in_quotes_of_its_own(quote: str, more: int) -> None:
    text = f"a = {quote * 3}x{quote * more}\nb = 1 {quote * (3 + more)}\nc = 2\n"
    assert set(tomllib.loads(text)) == {"a", "c"}
    assert locate(text) == {("a",): 1, ("c",): 3}


@pytest.mark.parametrize("text", ["", "\n\n", "# only a note", " \t "])
def test_a_text_without_keys_has_no_lines(text: str) -> None:
    assert locate(text) == {}


def test_windows_line_ends_count_once() -> None:
    assert locate("a = 1\r\n\r\nb = 2\r\n") == {("a",): 1, ("b",): 3}


@pytest.mark.parametrize(
    "text", ["= 1", "[", "[[", "a", "a = [", "a = {", "a = {{", "a = [,", "]", '"', "a = '''", "a.=.b"]
)
def test_a_text_that_is_no_toml_ends_all_the_same(text: str) -> None:
    locate(text)
