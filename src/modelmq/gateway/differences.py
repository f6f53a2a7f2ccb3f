"""Where two workers' words about the tensors of one model version part. Pure."""

from __future__ import annotations

from typing import NamedTuple

from modelmq.metadata import Signature, TensorSpec


class Difference(NamedTuple):
    """The tensor, and what it is for the one and for the other."""

    tensor: str
    here: str
    there: str


def difference(here: Signature, there: Signature) -> Difference | None:
    """The first one among inputs, then outputs; None when they agree. Order does not matter, tensors have names."""
    return _among("input", here.inputs, there.inputs) or _among("output", here.outputs, there.outputs)


def _among(role: str, here: tuple[TensorSpec, ...], there: tuple[TensorSpec, ...]) -> Difference | None:
    ours, theirs = ({spec.name: spec for spec in specs} for specs in (here, there))
    for name in dict.fromkeys([*ours, *theirs]):
        if ours.get(name) != theirs.get(name):
            return Difference(f"{role} {name}", _shown(ours.get(name)), _shown(theirs.get(name)))
    return None


def _shown(spec: TensorSpec | None) -> str:
    if spec is None:
        return "absent"
    optional = " (optional)" if spec.optional else ""
    return f"{spec.datatype} {list(spec.shape)}{optional}"
