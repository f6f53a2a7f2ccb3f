"""Runs scikit-learn estimators from skops files, and from joblib or pickle files that were declared trusted.

One input `x` with a row per sample where the estimator knows its number of features; otherwise, and for columns of
their own, the inputs that model.toml declares. Outputs are `predict` and, where there is one, `predict_proba`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from modelmq.errors import ModelLoadError
from modelmq.metadata import VARIABLE, Signature, TensorSpec
from modelmq.protocol.datatypes import datatype_of
from modelmq.runtimes.runtime import Array, ModelSource, Runtime
from modelmq.runtimes.signatures import batch_axis, warm_up_inputs

PLATFORM = "sklearn"
METHODS = ("predict", "predict_proba")

_PROBE_ROWS = 2


class SklearnRuntime:
    """One fitted estimator."""

    def __init__(self, estimator: Any, signature: Signature, methods: tuple[str, ...]) -> None:
        self.signature = signature
        self._inputs = signature.inputs
        self._methods: dict[str, Callable[[Array], Array]] = {name: getattr(estimator, name) for name in methods}

    def predict(self, inputs: dict[str, Array]) -> dict[str, Array]:
        """The result of each method on the samples."""
        samples = _samples([inputs[spec.name] for spec in self._inputs])
        return {name: method(samples) for name, method in self._methods.items()}

    def close(self) -> None:
        """Drops the estimator."""
        self._methods = {}


def open_sklearn(source: ModelSource) -> Runtime:
    """Raises ModelLoadError, or the framework's own errors for a file it cannot read."""
    estimator = _read(source)
    methods = tuple(name for name in METHODS if callable(getattr(estimator, name, None)))
    if "predict" not in methods:
        raise ModelLoadError(f"{source.path} holds a {type(estimator).__name__}, which has no predict method.")
    _limit_threads(source.settings.threads)
    # Trained with column names, served by position: the order is the contract, so the reminder is noise.
    warnings.filterwarnings("ignore", message="X does not have valid feature names")
    inputs = source.settings.inputs or _inputs(estimator, source)
    batched = source.settings.batched and batch_axis(inputs)
    declared = source.settings.outputs
    if declared:
        unknown = [spec.name for spec in declared if spec.name not in methods]
        if unknown:
            raise ModelLoadError(
                f'{source.path} has no output "{unknown[0]}" that model.toml declares; it has {", ".join(methods)}.'
            )
        methods = tuple(spec.name for spec in declared)
        return SklearnRuntime(
            estimator, Signature(PLATFORM, inputs, declared, batched and batch_axis(declared)), methods
        )
    undeclared = SklearnRuntime(estimator, Signature(PLATFORM, inputs, (), batched), methods)
    return _probed(estimator, undeclared, methods)


def _read(source: ModelSource) -> Any:
    if source.path.suffix == ".skops":
        return _read_skops(source)
    if not source.settings.trust:
        raise ModelLoadError(
            f"{source.path} is a pickle, which can run any code while it is read; save the model with skops, or set "
            "trust = true in model.toml if the file is your own."
        )
    import joblib  # noqa: PLC0415 - pickles only

    return joblib.load(source.path)


def _read_skops(source: ModelSource) -> Any:
    import skops.io  # noqa: PLC0415 - skops files only

    untrusted = skops.io.get_untrusted_types(file=source.path)
    if untrusted and not source.settings.trust:
        raise ModelLoadError(
            f"{source.path} holds types that skops does not know to be safe ({', '.join(untrusted)}); set trust = true "
            "in model.toml if the file is your own."
        )
    return skops.io.load(source.path, trusted=untrusted)


def _limit_threads(threads: int) -> None:
    import threadpoolctl  # type: ignore[import-untyped]  # noqa: PLC0415 - comes with scikit-learn

    threadpoolctl.threadpool_limits(limits=threads)


def _inputs(estimator: Any, source: ModelSource) -> tuple[TensorSpec, ...]:
    features = getattr(estimator, "n_features_in_", None)
    if not isinstance(features, int | np.integer):
        raise ModelLoadError(
            f"{source.path} holds a {type(estimator).__name__} that does not know its number of features; declare its "
            'inputs in model.toml, such as [[inputs]] with name = "text", datatype = "BYTES" and shape = [-1].'
        )
    return (TensorSpec("x", "FP64", (VARIABLE, int(features))),)


def _probed(estimator: Any, runtime: SklearnRuntime, methods: tuple[str, ...]) -> Runtime:
    """The runtime with its outputs as two rows of zeros show them; where zeros cannot be computed, undeclared ones."""
    signature = runtime.signature
    try:
        arrays = runtime.predict(warm_up_inputs(signature, _PROBE_ROWS) or {})
    except Exception:  # the estimator does not like zeros; that is no fault of the model
        return runtime
    usable = {name: array for name, array in arrays.items() if isinstance(array, np.ndarray) and array.ndim > 0}
    kept = tuple(name for name in methods if name in usable)
    outputs = tuple(
        TensorSpec(name, datatype_of(usable[name].dtype), (VARIABLE, *usable[name].shape[1:])) for name in kept
    )
    return SklearnRuntime(estimator, Signature(PLATFORM, signature.inputs, outputs, signature.batched), kept)


def _samples(columns: list[Array]) -> Array:
    """One array with a row per sample: a single input as it is, several joined as columns in their declared order."""
    texts = [_text(column) if column.dtype.kind == "O" else column for column in columns]
    if len(texts) == 1:
        return texts[0]
    return np.hstack([column.reshape(column.shape[0], -1) for column in texts])


def _text(array: Array) -> Array:
    texts = np.empty(array.size, np.object_)
    texts[:] = [item.decode() if isinstance(item, bytes) else item for item in array.ravel()]
    return texts.reshape(array.shape)
