"""What a model says of itself: its tensors, its limits, where its requests go.

Read by workers (validation, batching), carried in `hello` answers, shown by the gateway. Pure values.
"""

from __future__ import annotations

import re

import msgspec

MODEL_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
VERSION = re.compile(r"[0-9]{1,18}\Z")

DATATYPES = (
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64",
    "FP16", "FP32", "FP64", "BYTES",
)  # fmt: skip
"""Tensor element types of the Open Inference Protocol V2, in its order."""

VARIABLE = -1
"""A dimension whose size each request chooses."""


class TensorSpec(msgspec.Struct, frozen=True, omit_defaults=True):
    """A declared input or output. `shape` includes the batch axis; -1 is a size the request chooses."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    optional: bool = False


class Signature(msgspec.Struct, frozen=True):
    """What a loaded model takes and gives. `inputs` empty means: inferred, any tensors are passed through."""

    platform: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    batched: bool
    """True: axis 0 of every input and output counts rows, so requests can be joined along it."""


class BatchPolicy(msgspec.Struct, frozen=True):
    """How requests for one model are joined. `max_batch_size` counts rows, not requests."""

    max_batch_size: int = 32
    max_queue_delay_ms: float = 0.0


class ModelMetadata(msgspec.Struct, frozen=True):
    """One version of one model as it is served."""

    name: str
    version: str
    signature: Signature
    batch: BatchPolicy = BatchPolicy()
    idempotent: bool = True
    """False: it has side effects, so a request that may have run already is not sent to it again."""
    timeout_s: float | None = None
    """The deadline that its owner gives a request that names none; None where the owner says nothing."""
