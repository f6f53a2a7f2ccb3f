"""The core does no I/O and reads no clock, and nothing heavy comes with it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import modelmq.amqp

CORE = ["acks", "confirms", "frames", "handshake", "options", "properties", "renewal", "tables", "wire"]
SHELL = {"asyncio", "ssl", "socket", "time", "random", "threading", "select", "os", "logging"}


def imported(module: str) -> set[str]:
    tree = ast.parse((Path(modelmq.amqp.__file__).parent / f"{module}.py").read_text())
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return names


@pytest.mark.parametrize("module", CORE)
def test_the_core_imports_only_the_core(module: str) -> None:
    names = imported(module)
    assert not {name.partition(".")[0] for name in names} & SHELL
    ours = {name for name in names if name.startswith("modelmq")}
    assert ours <= {f"modelmq.amqp.{each}" for each in CORE} | {"modelmq.amqp", "modelmq.errors", "modelmq.tls.options"}


def test_public_names_are_sorted_and_there() -> None:
    assert sorted(modelmq.amqp.__all__) == modelmq.amqp.__all__
    assert all(hasattr(modelmq.amqp, name) for name in modelmq.amqp.__all__)
