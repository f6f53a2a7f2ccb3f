"""docs/models.md tells every key of model.toml with its default, and its examples are what they are said to be."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import msgspec
import pytest

from modelmq.runtimes import ModelSettings
from modelmq.runtimes.repository import MODEL_FILES
from tests.docs.pages import ROOT, blocks

PAGE = (ROOT / "docs" / "models.md").read_text("utf-8")
TABLE = PAGE[PAGE.index("## Every key of") : PAGE.index("A key in a version folder's file wins")]
ROWS = {name: row for row in TABLE.splitlines() for name in re.findall(r"`(\w+)`", row.partition(" | ")[0])}
DEFAULTS = {field.name: field.default for field in msgspec.structs.fields(ModelSettings)}


def test_the_keys_are_those_of_the_settings() -> None:
    assert set(ROWS) == set(DEFAULTS)


@pytest.mark.parametrize("key", DEFAULTS)
def test_defaults_are_told(key: str) -> None:
    told = ROWS[key].split(" | ")[-2].strip("` ")
    default = DEFAULTS[key]
    assert told == "none" if default in (None, ()) else tomllib.loads(f"x = {told}")["x"] == default


@pytest.mark.parametrize("name", MODEL_FILES)
def test_every_kind_of_model_file_is_named(name: str) -> None:
    assert name in PAGE


def test_the_class_shown_is_the_one_that_is_served() -> None:
    python = [block.text for block in blocks("docs/models.md") if block.language == "python"]
    assert Path(ROOT, "examples/models/sentiment/1/model.py").read_text() in python


def test_the_settings_shown_are_those_of_the_example() -> None:
    shown = [tomllib.loads(block.text) for block in blocks("docs/models.md") if block.language == "toml"]
    assert tomllib.loads((ROOT / "examples/models/iris/model.toml").read_text()) in shown
