"""What cannot be had on this machine: its tests are skipped, and the last lines of the run name it."""

from __future__ import annotations

import sys
from typing import NoReturn

import pytest

_REASONS = pytest.StashKey[dict[str, str]]()


def not_tested(config: pytest.Config, what: str, reason: str) -> NoReturn:
    """Skips the test. `reason` is a sentence."""
    config.stash.setdefault(_REASONS, {})[what] = reason
    pytest.skip(f"{what}: NOT TESTED. {reason}")


def write_not_tested(config: pytest.Config) -> None:
    """One line for each thing that some test would have needed."""
    for what, reason in config.stash.get(_REASONS, {}).items():
        sys.stdout.write(f"{what}: NOT TESTED. {reason}\n")
