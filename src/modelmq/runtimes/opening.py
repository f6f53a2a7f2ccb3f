"""Opens a model with the runtime its source names, importing that runtime's framework only then."""

from __future__ import annotations

from collections.abc import Callable

from modelmq.errors import ModelLoadError
from modelmq.runtimes.runtime import ModelSource, Runtime


def open_model(source: ModelSource, cancelled: Callable[[], bool] = lambda: False) -> Runtime:
    """A runtime ready to compute. Raises ModelLoadError naming the file and the reason, and nothing else.

    `cancelled` says while it computes whether nobody waits for that any more; handed to models that ask for it.
    """
    try:
        return _open(source, cancelled)
    except ModelLoadError:
        raise
    except ImportError as error:
        raise ModelLoadError(f"{source.path} cannot be loaded: {_missing(error)}.") from error
    except Exception as error:  # a model file runs foreign code, which may raise anything
        raise ModelLoadError(f"{source.path} cannot be loaded: {reason(error)}.") from error


def _open(source: ModelSource, cancelled: Callable[[], bool]) -> Runtime:
    match source.settings.runtime:
        case "onnx":
            from modelmq.runtimes.onnx_runtime import open_onnx  # noqa: PLC0415 - heavy, only for ONNX models

            return open_onnx(source)
        case "sklearn":
            from modelmq.runtimes.sklearn_runtime import open_sklearn  # noqa: PLC0415 - heavy, only for its models

            return open_sklearn(source)
        case "python":
            from modelmq.runtimes.python_runtime import open_python  # noqa: PLC0415 - as its siblings

            return open_python(source, cancelled)
        case undecided:
            raise ModelLoadError(f'{source.path} cannot be loaded: runtime "{undecided}" is not decided; use scan().')


def reason(error: BaseException) -> str:
    """The kind and the first line of an error, bounded, without a full stop."""
    first = next(iter(str(error).strip().splitlines()), "")[:300].rstrip(". ")
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def _missing(error: ImportError) -> str:
    extras = {"sklearn": "sklearn", "skops": "sklearn", "joblib": "sklearn"}
    module = (error.name or "").partition(".")[0]
    if module in extras:
        return f"it needs the Python package {module}; install modelmq[{extras[module]}]"
    if module:
        return f"{reason(error)}; install the Python package it needs"
    return reason(error)
