"""The wheel as a user gets it: built through the source distribution, installed alone, run from its own files."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, text=True, timeout=120, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that nothing is left in the checkout; without isolation, so that no network is needed."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "src", source / "src", ignore=shutil.ignore_patterns("*.egg-info", "__pycache__"))
    run(sys.executable, "-m", "build", "--no-isolation", ".", cwd=source)
    (built,) = (source / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def programs(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` folder of an environment that has the wheel, and the packages of this one to depend on."""
    folder = tmp_path_factory.mktemp("installed")
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder)
    python = folder / "bin" / "python"
    flags = ("--disable-pip-version-check", "--no-deps", "--no-index")
    run(sys.executable, "-m", "pip", "--python", python, "install", *flags, wheel, cwd=folder)
    site = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip()
    # A folder named in a .pth file is searched last, and the .pth files within it, such as our own, are not read.
    Path(site, "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin"


def test_it_says_its_version(programs: Path, tmp_path: Path) -> None:
    assert VERSION in run(programs / "modelmq", "version", cwd=tmp_path)


def test_it_says_what_it_can_do(programs: Path, tmp_path: Path) -> None:
    said = run(programs / "modelmq", "--help", cwd=tmp_path)
    for command in ("up", "gateway", "worker", "infer", "status", "env", "topology", "broker"):
        assert f" {command} " in said


def test_every_module_is_in_it(programs: Path, tmp_path: Path) -> None:
    listed = run(
        programs / "python", "-c",
        "import modelmq, pathlib; r = pathlib.Path(modelmq.__file__).parent; print(r);"
        "print(*sorted(str(p.relative_to(r)) for p in r.rglob('*') if p.suffix != '.pyc' and p.is_file()), sep='\\n')",
        cwd=tmp_path,
    ).splitlines()  # fmt: skip
    assert Path(listed[0]).is_relative_to(programs.parent)
    package = ROOT / "src" / "modelmq"
    files = (path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    assert listed[1:] == sorted(str(path.relative_to(package)) for path in files)
    assert "py.typed" in listed


def test_it_is_licensed_and_described(wheel: Path, tmp_path: Path) -> None:
    shutil.unpack_archive(wheel, tmp_path, "zip")
    (metadata,) = tmp_path.glob("*.dist-info/METADATA")
    text = metadata.read_text("utf-8")
    assert "License-Expression: Apache-2.0" in text
    assert "# ModelMQ" in text
    assert list(tmp_path.glob("*.dist-info/licenses/LICENSE"))
