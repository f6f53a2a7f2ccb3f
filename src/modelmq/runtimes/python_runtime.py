"""Runs a plain Python class out of `model.py`: no base class, no import of ModelMQ, numpy arrays by name.

The class has `predict(batch)`, or `predict(batch, cancelled)`, and may have `load`, `close`, `inputs`, `outputs` and
`batched`. Without declared inputs any tensors are passed through. The file is trusted: it is code of the model's owner.
"""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from modelmq.errors import ModelLoadError
from modelmq.metadata import Signature, TensorSpec
from modelmq.runtimes.model_settings import tensor_problem
from modelmq.runtimes.runtime import Array, ModelSource, Runtime
from modelmq.runtimes.signatures import batch_axis

PLATFORM = "python"

_FORM = '{"text": ("BYTES", [-1])}'


class PythonRuntime:
    """One instance of the model's class, and the module it lives in."""

    def __init__(
        self, model: Any, signature: Signature, module: ModuleType, folder: str, cancelled: Callable[[], bool]
    ) -> None:
        self.signature = signature
        self._model = model
        self._more = {"cancelled": cancelled} if _asks_for("cancelled", model.predict) else {}
        self._module = module.__name__
        self._folder = folder

    def predict(self, inputs: dict[str, Array]) -> dict[str, Array]:
        """What the class returns, as it is."""
        outputs: dict[str, Array] = self._model.predict(inputs, **self._more)
        return outputs

    def close(self) -> None:
        """Calls the class's own `close` where it has one, and forgets its module."""
        model, self._model = self._model, None
        if model is None:
            return
        _forget(self._module, self._folder)
        closing = getattr(model, "close", None)
        if callable(closing):
            closing()


def open_python(source: ModelSource, cancelled: Callable[[], bool]) -> Runtime:
    """`cancelled` is given to a `predict` that has a parameter of this name.

    Raises ModelLoadError, or whatever the file raises while it is imported and loaded.
    """
    folder = str(source.path.parent)
    name = f"modelmq_model_{source.name.replace('-', '_')}_{source.version}"
    # Behind everything else, so that files beside model.py can be imported but never hide an installed package.
    sys.path.append(folder)
    try:
        module = _module(source, name)
        kind = _model_class(module, source)
        signature = _signature(kind, source)
        model = kind()
        _load(model, source)
    except SystemExit as error:
        _forget(name, folder)
        raise ModelLoadError(f"{source.path} cannot be loaded: it calls exit().") from error
    except BaseException:
        _forget(name, folder)
        raise
    return PythonRuntime(model, signature, module, folder, cancelled)


def _module(source: ModelSource, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, source.path)
    if spec is None or spec.loader is None:
        raise ModelLoadError(f"{source.path} cannot be loaded: it is not a Python file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look their classes up there
    spec.loader.exec_module(module)
    return module


def _forget(module: str, folder: str) -> None:
    sys.modules.pop(module, None)
    if folder in sys.path:
        sys.path.remove(folder)


def _model_class(module: ModuleType, source: ModelSource) -> type[Any]:
    found: dict[str, type[Any]] = {
        name: kind
        for name, kind in vars(module).items()
        if inspect.isclass(kind) and kind.__module__ == module.__name__ and callable(getattr(kind, "predict", None))
    }
    if not found:
        raise ModelLoadError(f"{source.path} has no class with a method predict(self, batch); write one.")
    kind: type[Any] | None = found.get("Model") or (next(iter(found.values())) if len(found) == 1 else None)
    if kind is None:
        raise ModelLoadError(
            f"{source.path} has several classes with predict ({', '.join(found)}); name the one to serve Model."
        )
    predict = getattr(kind, "predict", None)
    if inspect.iscoroutinefunction(predict) or inspect.isgeneratorfunction(predict):
        raise ModelLoadError(f"{source.path}: predict of {kind.__name__} must be a plain function that returns.")
    return kind


def _asks_for(name: str, function: Callable[..., Any]) -> bool:
    try:
        return name in inspect.signature(function).parameters
    except (TypeError, ValueError):  # a callable that does not say what it takes
        return False


def _signature(kind: type[Any], source: ModelSource) -> Signature:
    settings = source.settings
    inputs = settings.inputs or _declared(kind, "inputs", source)
    outputs = settings.outputs or _declared(kind, "outputs", source)
    wanted = settings.batched and getattr(kind, "batched", True)
    return Signature(PLATFORM, inputs, outputs, bool(wanted) and batch_axis(inputs, outputs))


def _declared(kind: type[Any], attribute: str, source: ModelSource) -> tuple[TensorSpec, ...]:
    declaration = getattr(kind, attribute, {})
    where = f"{source.path}: {attribute} of class {kind.__name__}"
    if not isinstance(declaration, Mapping):
        raise ModelLoadError(f"{where} must be a dict such as {_FORM}, not {type(declaration).__name__}.")
    specs = []
    for name, entry in declaration.items():
        try:
            datatype, shape = entry
            spec = TensorSpec(str(name), str(datatype), tuple(int(size) for size in shape))
        except (TypeError, ValueError) as error:
            raise ModelLoadError(f'{where}: "{name}" must be a datatype and a shape, as in {_FORM}.') from error
        if problem := tensor_problem(spec):
            raise ModelLoadError(f"{where}: {problem}.")
        specs.append(spec)
    return tuple(specs)


def _load(model: Any, source: ModelSource) -> None:
    """`load(self)`, or `load(self, folder)` with the version folder as a Path."""
    load: Callable[..., Any] | None = getattr(model, "load", None)
    if load is None:
        return
    if inspect.signature(load).parameters:
        load(source.path.parent)
    else:
        load()
