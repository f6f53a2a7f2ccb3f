"""Finds the models in a folder `<model>/<version>/<model file>` and reads their settings.

What cannot be served becomes one sentence naming the file, and everything else is found all the same. Opens no model.
Hidden folders, plain files such as samples and notes, and folders without a model file are passed over.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from modelmq.errors import ConfigError, ModelLoadError
from modelmq.metadata import MODEL_NAME, VERSION
from modelmq.runtimes import model_settings
from modelmq.runtimes.runtime import Catalog, ModelSource

SETTINGS_FILE = "model.toml"
MODEL_FILES = {
    "model.py": "python",
    "model.onnx": "onnx",
    "model.skops": "sklearn",
    "model.joblib": "sklearn",
    "model.pkl": "sklearn",
}
"""What a version folder may hold, and what runs it. `model.py` comes first: the others may be files it reads."""

_SUFFIXES = (".onnx", ".skops", ".joblib", ".pkl")
_LAYOUT = "expected <model>/<version>/ with one of " + ", ".join(MODEL_FILES)


def scan(models_dir: Path) -> Catalog:
    """Every version of every model that can be opened, by name and version number, and the problems of the rest."""
    models: list[ModelSource] = []
    problems: list[str] = []
    try:
        entries = _visible(models_dir)
    except OSError as error:
        return Catalog((), (f"The models folder {models_dir} cannot be read: {_why(error)}.",))
    for entry in entries:
        for found in _model(entry):
            if isinstance(found, ModelSource):
                models.append(found)
            else:
                problems.append(found)
    shared = _shared_addresses(models)
    return Catalog(tuple(source for source in models if source.name not in shared), (*problems, *shared.values()))


def _model(folder: Path) -> Iterator[ModelSource | str]:
    """One entry of the models folder."""
    if not folder.is_dir():
        if folder.suffix in _SUFFIXES or folder.name in MODEL_FILES:
            yield f"{folder} is not in a model's folder; move it to {folder.parent / folder.stem / '1'}/."
        return
    try:
        entries = _visible(folder)
    except OSError as error:
        yield f"The model folder {folder} cannot be read: {_why(error)}."
        return
    versions = [entry for entry in entries if entry.is_dir()]
    astray = [entry.name for entry in entries if entry.is_file() and entry.name in MODEL_FILES]
    if not MODEL_NAME.match(folder.name):
        if versions or astray:
            yield f"{folder} is not served: a model's name has letters, digits, _ and -, at most 64."
        return
    if astray:
        yield f"{folder / astray[0]} is not in a version folder; move it to {folder / '1'}/."
    numbered = sorted((v for v in versions if VERSION.match(v.name)), key=lambda v: (int(v.name), v.name))
    for version in versions:
        if version not in numbered and _present(version):
            yield f"{version} is not served: a version is a whole number, such as {folder / '1'}."
    if not numbered and not astray and not any(_present(version) for version in versions):
        yield f"{folder} holds no model; {_LAYOUT}."
    yield from _versions(folder, numbered)


def _versions(folder: Path, numbered: Iterable[Path]) -> Iterator[ModelSource | str]:
    try:
        of_model = _settings_text(folder)
        model_settings.parse(of_model)  # once for the model, so its mistakes are not told for every version
    except ConfigError as error:
        yield f"{error.message.rstrip('.')}; model {folder.name} is not served."
        return
    for version in numbered:
        try:
            yield _source(folder.name, version, of_model)
        except (ConfigError, ModelLoadError) as error:
            yield f"{error.message.rstrip('.')}; version {version.name} of model {folder.name} is not served."


def _source(name: str, version: Path, of_model: list[tuple[str, str]]) -> ModelSource:
    nothing = ("", str(version / SETTINGS_FILE))
    settings = model_settings.parse([*(of_model or [nothing]), *_settings_text(version)])
    try:
        present = _present(version)
    except OSError as error:
        raise ModelLoadError(f"{version} cannot be read: {_why(error)}.") from error
    wanted = settings.runtime
    fitting = [file for file in present if wanted in ("auto", MODEL_FILES[file])]
    if not fitting:
        kind = "model file" if wanted == "auto" else f"file for runtime {wanted}"
        expected = ", ".join(file for file, runtime in MODEL_FILES.items() if wanted in ("auto", runtime))
        raise ModelLoadError(f"{version} holds no {kind}; expected one of {expected}.")
    if len(fitting) > 1 and fitting[0] != "model.py":
        raise ModelLoadError(f"{version} holds {' and '.join(fitting)}; keep one, or choose by runtime in model.toml.")
    chosen = fitting[0]
    return ModelSource(
        name, version.name, version / chosen, msgspec.structs.replace(settings, runtime=MODEL_FILES[chosen])
    )


def _settings_text(folder: Path) -> list[tuple[str, str]]:
    """Text and name of the folder's settings file; nothing where there is none. Raises ConfigError."""
    path = folder / SETTINGS_FILE
    try:
        return [(path.read_text("utf-8"), str(path))]
    except FileNotFoundError:
        return []
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} cannot be read: it is not UTF-8.") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {_why(error)}.") from error


def _present(version: Path) -> list[str]:
    return [file for file in MODEL_FILES if (version / file).is_file()]


def _visible(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if not entry.name.startswith((".", "_")))


def _shared_addresses(models: list[ModelSource]) -> dict[str, str]:
    """Models whose routing key or queue belongs to another model as well, and the sentence about each."""
    settings = {source.name: source.settings for source in models}
    keys = Counter([*settings, *(s.routing_key for n, s in settings.items() if s.routing_key not in (None, n))])
    queues = Counter(s.queue for s in settings.values() if s.queue)
    problems = {}
    for name, own in settings.items():
        for key, value, uses in (("routing_key", own.routing_key, keys), ("queue", own.queue, queues)):
            if value and uses[value] > 1:
                problems[name] = f'Model {name} is not served: its {key} "{value}" is also that of another model.'
    return problems


def _why(error: OSError) -> str:
    return (error.strerror or type(error).__name__).lower()
