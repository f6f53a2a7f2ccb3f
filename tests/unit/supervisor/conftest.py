from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from modelmq.supervisor.processes import ServiceSpec

Fake = Callable[..., ServiceSpec]

READY = """
import os, signal, sys, time
def ready():
    os.write(int(os.environ["MODELMQ_READY_FD"]), b"ready\\n")
"""


@pytest.fixture
def fake(tmp_path: Path) -> Fake:
    """A service whose code is given; it may call `ready()`."""

    def make(code: str, name: str = "gateway", stage: int = 0, drain_s: float = 10.0) -> ServiceSpec:
        module = f"fake_{name.replace('-', '_')}"
        (tmp_path / f"{module}.py").write_text(READY + code)
        environ = {"PYTHONPATH": str(tmp_path), "PATH": os.environ["PATH"], "FOLDER": str(tmp_path)}
        return ServiceSpec(
            name=name,
            module=module,
            environ=environ,
            log=tmp_path / "logs" / f"{name}.log",
            run_dir=tmp_path / "run",
            drain_s=drain_s,
            stage=stage,
        )

    return make
