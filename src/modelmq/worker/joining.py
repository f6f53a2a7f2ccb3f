"""Joins the inputs of several requests along the batch axis, and cuts the outputs apart again.

Between the batcher and the executor. What each request gets is what it would have got alone, or the run counts as
raised: outputs are never sliced along an axis that is not the rows sent. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from modelmq.errors import ModelFailed

Tensors = dict[str, np.ndarray[Any, Any]]
T = TypeVar("T")


def batch_key(inputs: Mapping[str, np.ndarray[Any, Any]]) -> tuple[tuple[str, str, tuple[int, ...]], ...]:
    """Equal for inputs that can be joined: same names, types and shapes behind the batch axis."""
    return tuple(sorted([(name, array.dtype.char, array.shape[1:]) for name, array in inputs.items()]))


def join(parts: Sequence[Tensors]) -> Tensors:
    """One set of inputs out of several with equal `batch_key`."""
    if len(parts) == 1:
        return parts[0]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def check_rows(outputs: Mapping[str, np.ndarray[Any, Any]], total: int, model: str) -> None:
    """Raises ModelFailed for outputs that cannot be cut apart."""
    for name, array in outputs.items():
        if array.ndim == 0 or array.shape[0] != total:
            got = "no batch axis" if array.ndim == 0 else f"{array.shape[0]} rows"
            raise ModelFailed(
                f'Output "{name}" of model {model} has {got} where {total} were sent; '
                "the first axis of every output of a batched model must count the rows of its inputs."
            )


def split(outputs: Mapping[str, np.ndarray[Any, Any]], rows: Sequence[int], model: str) -> list[Tensors]:
    """The outputs of each request, as views; `rows` as they were joined. Raises ModelFailed."""
    check_rows(outputs, sum(rows), model)
    if len(rows) == 1:
        return [dict(outputs)]
    parts: list[Tensors] = []
    start = 0
    for count in rows:
        parts.append({name: array[start : start + count] for name, array in outputs.items()})
        start += count
    return parts


def select(outputs: dict[str, T], wanted: Iterable[str], model: str) -> dict[str, T]:
    """Only the outputs that a request asked for, in its order; without a wish all. Raises ModelFailed."""
    names = tuple(wanted)
    if not names:
        return outputs
    missing = [name for name in names if name not in outputs]
    if missing:
        given = ", ".join(outputs) or "none"
        raise ModelFailed(f'Model {model} gave no output "{missing[0]}"; it gave {given}.')
    return {name: outputs[name] for name in names}
