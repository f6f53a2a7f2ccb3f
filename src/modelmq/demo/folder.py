"""Keeps the demo models in a folder up to date: each is built beside its place and moved there whole.

A second call finds every model marked with the present recipe and imports no framework. Folders that are not marked
as the demo's own belong to somebody and are never replaced.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib
import importlib.metadata
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from modelmq.errors import ModelLoadError

MODELS = ("digits", "breast-cancer", "sentiment")
"""The demo models by name, the one to show first in front; each has a module of its own beside this one."""

MARK = ".demo"
"""A hidden file in each model's folder; it holds the fingerprint of the recipe that built it."""

_LOCK = ".demo-lock"
_SCRATCH = ".demo-scratch-"
_INGREDIENTS = ("numpy", "scikit-learn", "skl2onnx", "skops")


def is_current(directory: Path) -> bool:
    """Whether all demo models are there, built by the present recipe."""
    present = fingerprint()
    return all(_mark(directory / model) == present for model in MODELS)


def write(directory: Path) -> tuple[str, ...]:
    """Builds what is missing or outdated and returns its names; nothing when all is current.

    Safe to run twice at once, and to be killed at any moment. Raises ModelLoadError, OSError.
    """
    directory.mkdir(parents=True, exist_ok=True)
    present = fingerprint()
    with _alone(directory):
        outdated = tuple(model for model in MODELS if _mark(directory / model) != present)
        for model in outdated:
            if (directory / model).exists() and _mark(directory / model) is None:
                raise ModelLoadError(
                    f"{directory / model} is not a demo model; move it away, or choose another folder for the demo."
                )
        for leftover in directory.glob(f"{_SCRATCH}*"):
            shutil.rmtree(leftover)
        for model in outdated:
            _replace(directory, model, present)
    return outdated


def fingerprint() -> str:
    """Changes whenever the models would: with the recipes in this package and the libraries they use."""
    digest = hashlib.sha256()
    for recipe in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(recipe.read_bytes())
    for package in _INGREDIENTS:
        digest.update(f"{package} {_version(package)}\n".encode())
    return digest.hexdigest()


def _replace(directory: Path, model: str, present: str) -> None:
    scratch = Path(tempfile.mkdtemp(prefix=_SCRATCH, dir=directory))
    try:
        built = scratch / model
        _recipe(model)(built)
        (built / MARK).write_text(present, "ascii")
        place = directory / model
        if place.exists():
            place.rename(scratch / "outdated")
        built.rename(place)
    finally:
        shutil.rmtree(scratch)


def _recipe(model: str) -> Callable[[Path], None]:
    try:
        module = importlib.import_module(f"modelmq.demo.{model.replace('-', '_')}")
    except ImportError as error:
        raise ModelLoadError(
            f"The demo model {model} cannot be built: the Python package {error.name} is missing; "
            'install "modelmq[demo]".'
        ) from error
    build: Callable[[Path], None] = module.build
    return build


def _mark(folder: Path) -> str | None:
    try:
        return (folder / MARK).read_text("ascii")
    except (OSError, UnicodeDecodeError):
        return None


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Only one process at a time writes; the lock ends with its holder, however that ends."""
    with (directory / _LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
