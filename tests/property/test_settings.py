"""Settings over all documents and sources: lines agree with the standard parser, precedence holds for every key."""

from __future__ import annotations

import json
import tomllib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from modelmq.errors import ConfigError
from modelmq.settings import CATALOG, load
from modelmq.settings_source import from_environ, from_flags, from_toml
from modelmq.toml_lines import Path, locate

TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), max_size=6)
BARE = st.from_regex(r"[A-Za-z0-9_-]{1,5}", fullmatch=True)


def quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def literal(text: str) -> str:
    return "'" + text.replace("'", "") + "'"


def multi_line(text: str) -> str:
    return '"""\n' + quoted(text)[1:-1] + '\n= # [x] \\"\n' + '"""'


KEYS = BARE | TEXT.map(quoted) | TEXT.map(literal)
STRINGS = TEXT.map(quoted) | TEXT.map(literal) | TEXT.map(multi_line)
SCALARS = STRINGS | st.sampled_from(["1", "-2.5e3", "true", "inf", "1979-05-27T07:32:00Z", "1979-05-27 07:32:00"])
NOISE = st.sampled_from(["", " ", "\n", " # a = [1] \n", "\n\n"])


def array_of(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    items = st.lists(st.tuples(NOISE, values, NOISE), max_size=3)
    return items.map(lambda found: "[" + ",".join(f"{a}{value}{b}" for a, value, b in found) + "]")


def inline_of(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    pairs = st.lists(st.tuples(KEYS, values), max_size=3)
    return pairs.map(lambda found: "{" + ", ".join(f"{key} = {value}" for key, value in found) + "}")


VALUES = st.recursive(SCALARS, lambda inner: array_of(inner) | inline_of(inner), max_leaves=5)
DOTTED = st.lists(KEYS, min_size=1, max_size=3).map(" . ".join)
PAIRS = st.tuples(DOTTED, VALUES).map(" = ".join)
HEADERS = DOTTED.map("[{}]".format) | DOTTED.map("[[ {} ]]".format)
LINES = st.one_of(PAIRS, PAIRS, HEADERS, st.sampled_from(["", "# note = 1", "  "]))
ENDS = st.sampled_from(["\n", "\r\n", " # b = 2\n"])
DOCUMENTS = st.lists(st.tuples(LINES, ENDS), max_size=8).map(lambda lines: "".join(a + b for a, b in lines))


def paths(value: Any, path: Path = ()) -> set[Path]:
    """Every table and key, arrays transparent."""
    if isinstance(value, dict):
        return {p for key, inner in value.items() for p in {(*path, key)} | paths(inner, (*path, key))}
    if isinstance(value, list):
        return {p for inner in value for p in paths(inner, path)}
    return set()


@given(DOCUMENTS)
def test_lines_are_known_for_exactly_the_keys_of_the_standard_parser(text: str) -> None:
    try:
        parsed = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        locate(text)  # must end, whatever it finds
        return
    lines = locate(text)
    assert set(lines) == paths(parsed)
    count = text.count("\n") + 1
    assert all(1 <= line <= count for line in lines.values())


@given(st.text())
def test_any_text_ends(text: str) -> None:
    locate(text)


@given(st.text() | DOCUMENTS)
def test_any_file_gives_settings_or_one_sentence(text: str) -> None:
    sentence = "f"
    try:
        from_toml(text, "f", CATALOG)
    except ConfigError as error:
        sentence = error.message
    assert sentence.startswith("f")
    assert sentence.isprintable()


VALID = {
    "gateway.port": st.integers(0, 65535),
    "gateway.host": st.from_regex(r"[a-z]{1,9}", fullmatch=True),
    "broker.heartbeat_s": st.integers(1, 1000).map(float),
    "broker.hosts": st.lists(st.from_regex(r"[a-z]{1,5}:[1-9]", fullmatch=True), min_size=1, max_size=3).map(tuple),
    "worker.max_attempts": st.integers(1, 64),
    "topology.queue_type": st.sampled_from(["quorum", "classic"]),
    "models_dir": st.from_regex(r"[a-z]{1,9}", fullmatch=True),
}
LAYERS = st.fixed_dictionaries({}, optional=VALID)


def as_text(value: object) -> str:
    return ",".join(value) if isinstance(value, tuple) else str(value)


def as_file(layer: dict[str, Any]) -> str:
    """Dotted keys, so that their order in the file does not matter."""
    return "\n".join(f"{key} = {json.dumps(value)}" for key, value in layer.items())


def value_of(settings: object, key: str) -> object:
    for name in key.split("."):
        settings = getattr(settings, name)
    return settings


@given(LAYERS, LAYERS, LAYERS)
def test_flags_win_over_environment_over_file_for_every_key(
    file: dict[str, Any], environ: dict[str, Any], flags: dict[str, Any]
) -> None:
    variables = {CATALOG[key].variable: as_text(value) for key, value in environ.items()}
    settings = load(as_file(file), "f", variables, flags)
    for key, setting in CATALOG.items():
        expected = {key: setting.default} | file | environ | flags
        assert value_of(settings, key) == expected[key], key


@given(LAYERS)
def test_a_value_means_the_same_in_a_file_a_variable_and_a_flag(layer: dict[str, Any]) -> None:
    file = from_toml(as_file(layer), "f", CATALOG)
    variables = from_environ({CATALOG[key].variable: as_text(value) for key, value in layer.items()}, CATALOG)
    flags = from_flags({key: as_text(value) for key, value in layer.items()}, CATALOG)
    for key, value in layer.items():
        assert file[key].value == variables[key].value == flags[key].value == value
