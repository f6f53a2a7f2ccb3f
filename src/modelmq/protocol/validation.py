"""Whether a request fits the model it names: every check against a signature that needs no tensor values.

The codec calls these around decoding: tensor by tensor before any memory is taken for values, then the request as a
whole. Each refusal names the input and says what was expected. Knows nothing of JSON.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice

from modelmq.errors import InvalidRequest
from modelmq.metadata import VARIABLE, Signature, TensorSpec
from modelmq.protocol.tensors import Array, InferenceRequest

MAX_RANK = 32
MAX_SIZE = 2**31 - 1
"""No dimension of a tensor in a message of a few megabytes can be larger, unless another one is 0."""

MAX_EXTENT = 2**48
"""Elements that a tensor would have without its dimensions of 0: numpy refuses an array long before 2**63 bytes, also
an empty one, and a batch has many of them."""

_LISTED = 20


def shown(name: str) -> str:
    """A name from outside, bounded and printable, for a sentence."""
    clean = "".join(c if c.isprintable() else "?" for c in name[:80])
    return f'"{clean}"'


def subject(role: str, name: str, model: str = "") -> str:
    """`Input "x" of model digits`; without a model just `Input "x"`."""
    owner = f" of model {model}" if model else ""
    return f"{role} {shown(name)}{owner}"


def element_count(shape: Sequence[int], role: str, name: str, model: str = "") -> int:
    """How many elements a shape has. Raises InvalidRequest for an impossible shape.

    Uses Python's unbounded integers, so no shape can overflow into a small number.
    """
    if len(shape) > MAX_RANK:
        raise InvalidRequest(f"{subject(role, name, model)} has {len(shape)} dimensions; expected at most {MAX_RANK}.")
    count = extent = 1
    for size in shape:
        if size < 0 or size > MAX_SIZE:
            raise InvalidRequest(
                f"{subject(role, name, model)} has shape {shape_text(shape)}; expected sizes from 0 to {MAX_SIZE}."
            )
        count *= size
        extent *= size or 1
    if extent > MAX_EXTENT and count == 0:  # any other is refused for what it has not: that many values
        raise InvalidRequest(f"{subject(role, name, model)} has shape {shape_text(shape)}, which no array can have.")
    return count


def unknown_input(name: str, declared: Iterable[TensorSpec], model: str = "") -> InvalidRequest:
    """The refusal of an input the model does not have."""
    return InvalidRequest(
        f"{subject('Input', name, model)} is unknown; the model's inputs are {_listed(spec.name for spec in declared)}."
    )


def check_fit(spec: TensorSpec, datatype: str, shape: Sequence[int], model: str = "") -> None:
    """Raises InvalidRequest when an input's datatype or shape is not the declared one."""
    if datatype != spec.datatype:
        raise InvalidRequest(
            f"{subject('Input', spec.name, model)} has datatype {shown(datatype)[1:-1]}; expected {spec.datatype}."
        )
    if len(shape) == len(spec.shape):
        for size, expected in zip(shape, spec.shape, strict=True):
            if expected not in (size, VARIABLE):
                break
        else:
            return
    raise InvalidRequest(
        f"{subject('Input', spec.name, model)} has shape {shape_text(shape)}; expected {shape_text(spec.shape)}."
    )


def check_complete(inputs: Mapping[str, Array], signature: Signature, model: str = "") -> None:
    """Raises InvalidRequest when a required input is missing or the inputs of a batched model differ in rows."""
    for spec in signature.inputs:
        if spec.name not in inputs and not spec.optional:
            raise InvalidRequest(
                f"{subject('Input', spec.name, model)} is missing; expected {spec.datatype} {shape_text(spec.shape)}."
            )
    if not signature.batched:
        return
    if not inputs:
        raise InvalidRequest(f"The request{f' for model {model}' if model else ''} has no inputs; send at least one.")
    first_name, first = next(iter(inputs.items()))
    for name, array in inputs.items():
        if array.ndim == 0 or array.shape[0] == 0:
            raise InvalidRequest(
                f"{subject('Input', name, model)} has shape {shape_text(array.shape)}; expected at least one row."
            )
        if array.shape[0] != first.shape[0]:
            raise InvalidRequest(
                f"{subject('Input', name, model)} has {array.shape[0]} rows and {shown(first_name)} has "
                f"{first.shape[0]}; expected the same number of rows in every input."
            )


def check_requested(names: Iterable[str], signature: Signature, model: str = "") -> None:
    """Raises InvalidRequest when an output is asked for that the model does not give; inferred outputs pass."""
    if not signature.outputs:
        return
    known = [spec.name for spec in signature.outputs]
    for name in names:
        if name not in known:
            raise InvalidRequest(
                f"{subject('Output', name, model)} is unknown; the model's outputs are {_listed(known)}."
            )


def rows_of(request: InferenceRequest, signature: Signature) -> int:
    """How many rows of a batch the request takes; 1 when the model is not batched."""
    if not signature.batched:
        return 1
    for array in request.inputs.values():
        return int(array.shape[0])
    return 1


def shape_text(shape: Sequence[int]) -> str:
    """A shape as the protocol writes it, `[-1, 64]`, shortened when somebody sent hundreds of dimensions."""
    sizes = [_number(size) for size in shape[:8]]
    if len(shape) > 8:
        sizes.append("…")
    return f"[{', '.join(sizes)}]"


def _listed(names: Iterable[str]) -> str:
    first = list(islice(names, _LISTED + 1))
    return ", ".join(first[:_LISTED]) + (", …" if len(first) > _LISTED else "")


def _number(size: int) -> str:
    return str(size) if -(10**20) < size < 10**20 else "beyond 20 digits"
