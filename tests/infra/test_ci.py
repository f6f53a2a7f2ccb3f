"""`.ci/run` itself where the engine was not tested: that is a failure only where its Go modules can be had."""

from __future__ import annotations

import os
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

from tests.infra.engine import ROOT

PROXY = "github.com/cyrilgdn/terraform-provider-rabbitmq"
RUN = """\
=================== 3 passed, 1 skipped in 1.00s ===================
"""
LINE = "engine: NOT TESTED. There is no Go."


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The script with what it calls, and a `make` that ends as the tests do without the engine."""
    (tmp_path / "tools").mkdir()
    (tmp_path / "bin").mkdir()
    shutil.copytree(ROOT / ".ci", tmp_path / ".ci")
    shutil.copytree(ROOT / "tools" / "pulumi", tmp_path / "tools" / "pulumi")
    make = tmp_path / "bin" / "make"
    make.write_text(f"#!/bin/sh\ncat <<'END'\n{RUN}{LINE}\nEND\n")
    make.chmod(0o755)
    return tmp_path


@pytest.fixture
def modules(tmp_path: Path) -> str:
    """A module proxy in a folder, with the one module that is asked for."""
    version = "v1.8.0"
    folder = tmp_path / "proxy" / PROXY / "@v"
    folder.mkdir(parents=True)
    (folder / f"{version}.info").write_text(f'{{"Version": "{version}"}}')
    (folder / f"{version}.mod").write_text(f"module {PROXY}\n")
    with zipfile.ZipFile(folder / f"{version}.zip", "w") as archive:
        archive.writestr(f"{PROXY}@{version}/go.mod", f"module {PROXY}\n")
    return f"file://{tmp_path / 'proxy'}"


def run(copy: Path, proxy: str) -> tuple[int, list[str]]:
    environ = os.environ | {
        "PATH": f"{copy / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PULUMI_ENGINE_CACHE": str(copy / "cache"),
        "GOPROXY": proxy,
        "GOSUMDB": "off",
        "GOFLAGS": "",
    }
    done = subprocess.run(
        ["bash", ".ci/run"], cwd=copy, env=environ, capture_output=True, text=True, timeout=120, check=False
    )
    return done.returncode, done.stdout.splitlines()


def test_where_modules_can_be_had_it_fails(copy: Path, modules: str) -> None:
    status, lines = run(copy, modules)
    assert status == 1
    assert lines[-2:] == [
        "Pulumi's engine was not tested, although the Go modules that it is built from can be had here.",
        LINE,
    ]


def test_where_they_cannot_it_says_so_and_passes(copy: Path) -> None:
    status, lines = run(copy, "off")
    assert status == 0
    assert lines[-1] == LINE
