"""What cannot be had on this machine: its tests are skipped, and the last lines of the run name it.

Where the tests run in several processes, each tells the one that prints.
"""

from __future__ import annotations

import sys
from typing import Any, NoReturn

import pytest

_REASONS = pytest.StashKey[dict[str, str]]()
_KEY = "not_tested"


def not_tested(config: pytest.Config, what: str, reason: str) -> NoReturn:
    """Skips the test. `reason` is a sentence."""
    config.stash.setdefault(_REASONS, {})[what] = reason
    pytest.skip(f"{what}: NOT TESTED. {reason}")


def tell_not_tested(config: pytest.Config) -> None:
    """At the end of one process of several: what it found goes to the one that prints."""
    output: dict[str, Any] | None = getattr(config, "workeroutput", None)
    if output is not None:
        output[_KEY] = config.stash.get(_REASONS, {})


def hear_not_tested(config: pytest.Config, output: dict[str, Any]) -> None:
    """What another process found."""
    config.stash.setdefault(_REASONS, {}).update(output.get(_KEY, {}))


def write_not_tested(config: pytest.Config) -> None:
    """One line for each thing that some test would have needed."""
    if hasattr(config, "workeroutput"):
        return
    for what, reason in config.stash.get(_REASONS, {}).items():
        sys.stdout.write(f"{what}: NOT TESTED. {reason}\n")
