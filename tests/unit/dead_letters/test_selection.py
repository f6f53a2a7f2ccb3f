from __future__ import annotations

import pytest

from modelmq.dead_letters.selection import duration_s
from modelmq.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("1.5s", 1.5), ("15m", 900), ("2h", 7200), ("7d", 604_800), ("500ms", 0.5)]
)
def test_times(text: str, seconds: float) -> None:
    assert duration_s(text, "--flag") == seconds


@pytest.mark.parametrize("text", ["", "soon", "-5", "1y", "1e9", "9" * 50, "300w h", "nan", "99999w"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^--flag takes a time such as 90s, 15m, 2h or 7d, not "):
        duration_s(text, "--flag")
