"""docs/settings.md is what the settings' records say, and its example of a mistake is what the program answers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from modelmq.errors import ConfigError
from modelmq.settings import CATALOG, load

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "settings.md").read_text("utf-8")


def test_the_page_is_current() -> None:
    made = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "settings_page.py")], capture_output=True, text=True, check=True
    )
    assert made.stdout == PAGE, "run python tools/settings_page.py --write"


@pytest.mark.parametrize("key", CATALOG)
def test_every_setting_is_on_it(key: str) -> None:
    assert f"| `{CATALOG[key].name}` |" in PAGE


@pytest.mark.parametrize("text", ["[gateway]\nprt = 1", '[gateway]\n\nport = "http"'])
def test_the_mistakes_it_shows_are_answered_so(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(text, "modelmq.toml", {}, {})
    assert f"\n{caught.value.message}\n" in PAGE
