"""What a figure may know of a running ModelMQ, and the model it serves.

`up` (in `ours`) makes one. Knows nothing of figures.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from benchmarks.clients.drive import Address


@dataclass(frozen=True, slots=True)
class System:
    """One ModelMQ with its default settings, serving the digits model. Pids are of processes alive now."""

    http_url: str
    model: str
    model_file: Path
    max_batch_size: int
    threads: int
    pid: int
    gateway_pid: int
    worker_pid: int
    broker_pid: int
    echo: Address
    """A queue of the same type as the models' on the same broker, for bare AMQP round trips."""

    @property
    def infer_url(self) -> str:
        """Where digits are asked."""
        return f"{self.http_url}/v2/models/{self.model}/infer"
