"""The values and the port of this package: where a model is, and what can be done with an open one."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np

from modelmq.metadata import BatchPolicy, Signature
from modelmq.runtimes.model_settings import ModelSettings

Array = np.ndarray[Any, Any]


class ModelSource(msgspec.Struct, frozen=True):
    """One version of one model in the models folder; `path` is its model file and `settings.runtime` is decided."""

    name: str
    version: str
    path: Path
    settings: ModelSettings

    @property
    def batch(self) -> BatchPolicy:
        """How its requests may be joined."""
        return BatchPolicy(self.settings.max_batch_size, self.settings.max_queue_delay_ms)


class Catalog(msgspec.Struct, frozen=True):
    """What a models folder holds: the models that can be opened, and one sentence for everything that cannot."""

    models: tuple[ModelSource, ...]
    problems: tuple[str, ...]


class Runtime(Protocol):
    """An open model. Used from one thread at a time."""

    @property
    def signature(self) -> Signature:
        """What it takes and gives; the same for as long as it is open."""
        ...

    def predict(self, inputs: dict[str, Array]) -> dict[str, Array]:
        """Computes one batch. Inputs fit the signature; outputs are what the model gave, not yet checked.

        Raises whatever the model raises; the model is usable afterwards.
        """
        ...

    def close(self) -> None:
        """Frees what the model holds. Idempotent; predict may not be called afterwards."""
        ...
