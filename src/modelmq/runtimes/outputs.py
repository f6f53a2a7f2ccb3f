"""Whether what a model gave can be answered with: names, types and rows against the signature and the batch sent.

The executor asks before it splits a batch, so an output with the wrong number of rows fails the batch and is never cut
at the wrong place. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from modelmq.errors import ModelFailed, Unsupported
from modelmq.metadata import VARIABLE, Signature, TensorSpec
from modelmq.protocol.datatypes import datatype_of, dtype_of
from modelmq.runtimes.runtime import Array


def checked_outputs(outputs: object, signature: Signature, rows: int, model: str = "") -> dict[str, Array]:
    """The outputs as arrays of their declared types, in declared order; of any type where none are declared.

    Lists and numbers become arrays. Raises ModelFailed naming the output and what was expected.
    """
    owner = f" of model {model}" if model else ""
    if not isinstance(outputs, Mapping):
        raise ModelFailed(f"predict{owner} returned {_kind(outputs)}; expected a dict of arrays by output name.")
    if not signature.outputs:
        arrays = {str(name): _array(value, f'Output "{name}"{owner}') for name, value in outputs.items()}
    else:
        arrays = _declared(outputs, signature.outputs, owner)
    if signature.batched:
        for name, array in arrays.items():
            if array.ndim == 0 or array.shape[0] != rows:
                raise ModelFailed(
                    f'Output "{name}"{owner} has shape {list(array.shape)} for {rows} rows sent; expected {rows} rows.'
                )
    return arrays


def _declared(outputs: Mapping[Any, object], specs: Sequence[TensorSpec], owner: str) -> dict[str, Array]:
    known = {spec.name for spec in specs}
    for name in outputs:
        if name not in known:
            raise ModelFailed(f'Output "{name}"{owner} is not declared; declared are {", ".join(sorted(known))}.')
    arrays = {}
    for spec in specs:
        named = f'Output "{spec.name}"{owner}'
        if spec.name in outputs:
            arrays[spec.name] = _fitted(_array(outputs[spec.name], named), spec, named)
        elif not spec.optional:
            raise ModelFailed(f"{named} is missing in what predict returned.")
    return arrays


def _array(value: object, named: str) -> Array:
    if isinstance(value, np.ndarray):
        array = value
    elif isinstance(value, Sequence | bool | int | float | np.generic) or hasattr(value, "__array__"):
        try:
            array = np.asarray(value)
        except (ValueError, TypeError) as error:  # rows of different lengths, for instance
            raise ModelFailed(f"{named} cannot be made an array: {error}.") from error
    else:
        raise ModelFailed(f"{named} is {_kind(value)}; expected a numpy array.")
    try:
        datatype_of(array.dtype)
    except Unsupported as error:
        raise ModelFailed(f"{named} cannot be sent: {error.message}") from error
    return array


def _fitted(array: Array, spec: TensorSpec, named: str) -> Array:
    """The array in its declared type and shape, converted only where no value is lost but digits of a fraction."""
    dtype = dtype_of(spec.datatype)
    if array.dtype != dtype:
        array = _converted(array, spec.datatype, named)
    fits = len(array.shape) == len(spec.shape) and all(
        expected in (VARIABLE, size) for size, expected in zip(array.shape, spec.shape, strict=True)
    )
    if not fits:
        raise ModelFailed(f"{named} has shape {list(array.shape)}; declared is {list(spec.shape)}.")
    return array


def _converted(array: Array, datatype: str, named: str) -> Array:
    dtype = dtype_of(datatype)
    is_text = array.dtype.kind in "OSU"
    if datatype == "BYTES" and is_text:
        return array.astype(np.object_)
    if not is_text and datatype != "BYTES" and np.can_cast(array.dtype, dtype, "same_kind"):
        with np.errstate(over="ignore"):  # a value beyond the range becomes infinite, which encoding refuses
            converted = array.astype(dtype)
        if dtype.kind not in "iu" or np.array_equal(converted, array):
            return converted
    raise ModelFailed(f"{named} is {array.dtype}, which does not convert to the declared {datatype} without loss.")


def _kind(value: object) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"
