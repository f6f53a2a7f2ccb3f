"""Small rules about signatures that all runtimes share: when rows can be joined, how declarations and files agree.

Pure. The sentences it raises are finished by the runtime that knows the file.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from modelmq.errors import ModelLoadError
from modelmq.metadata import VARIABLE, Signature, TensorSpec
from modelmq.protocol.datatypes import dtype_of
from modelmq.runtimes.runtime import Array, ModelSource


def batch_axis(*groups: Iterable[TensorSpec]) -> bool:
    """Whether axis 0 of every tensor is of variable size, so that it can count rows."""
    return all(spec.shape[:1] == (VARIABLE,) for group in groups for spec in group)


def overridden(
    found: tuple[TensorSpec, ...], declared: tuple[TensorSpec, ...], source: ModelSource, role: str
) -> tuple[TensorSpec, ...]:
    """The tensors a model file names, with the shapes that model.toml declares for some of them.

    Raises ModelLoadError where the two contradict each other.
    """
    by_name = {spec.name: spec for spec in found}
    for spec in declared:
        known = by_name.get(spec.name)
        if known is None:
            raise ModelLoadError(
                f'{source.path} has no {role} "{spec.name}" that model.toml declares; it has {", ".join(by_name)}.'
            )
        if known.datatype != spec.datatype:
            raise ModelLoadError(
                f'{source.path} has {role} "{spec.name}" of {known.datatype}; model.toml declares {spec.datatype}.'
            )
        by_name[spec.name] = spec
    return tuple(by_name.values())


def warm_up_inputs(signature: Signature, rows: int = 1) -> dict[str, Array] | None:
    """Zeros, or empty strings, that fit the signature; None when its inputs are not declared.

    A variable size becomes `rows` on the batch axis and 1 elsewhere.
    """
    if not signature.inputs:
        return None
    inputs: dict[str, Array] = {}
    for spec in signature.inputs:
        if spec.optional:
            continue
        shape = [1 if size == VARIABLE else size for size in spec.shape]
        if signature.batched:
            shape[0] = rows
        if spec.datatype == "BYTES":
            inputs[spec.name] = np.full(shape, b"", np.object_)
        else:
            inputs[spec.name] = np.zeros(shape, dtype_of(spec.datatype))
    return inputs
