"""The value that travels through the worker: one request that fits its model and may be computed.

Made by intake out of a delivery, held by the batcher, run by the served version, settled by the lane it came from.
Its only behaviour is its name.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, Protocol

import msgspec
import numpy as np

from modelmq.amqp import Properties
from modelmq.messages import Lane
from modelmq.worker.outcome import Answer
from modelmq.worker.tombstones import Name


class Message(Protocol):
    """A request as it came: a delivery, or one part of a delivery."""

    @property
    def delivery_tag(self) -> int: ...  # noqa: D102 - the terms are AMQP's
    @property
    def redelivered(self) -> bool: ...  # noqa: D102
    @property
    def routing_key(self) -> str: ...  # noqa: D102
    @property
    def properties(self) -> Properties:
        """Raises ProtocolViolation when its sender wrote none that can be read."""
        ...

    @property
    def body(self) -> bytes: ...  # noqa: D102
    @property
    def body_size(self) -> int:
        """What its sender sent; `body` is empty where that was over the limit."""
        ...


class Origin(Protocol):
    """Where a message came from and its answer goes."""

    @property
    def open(self) -> bool:
        """False once the channel is gone: the broker redelivers its messages, so they must not be answered here."""
        ...

    def settle(self, delivery: Message, reply_to: str, answer: Answer) -> None:
        """Do what the verdict over this answer says, once per message. Acks, and the replies to parts of bundles, are
        held back until `flush`.
        """
        ...

    def flush(self, *, at_once: bool = False) -> None:
        """Send what is held back of everything settled since the last call: with all else of this turn of the loop, or
        before it ends.
        """
        ...


class WorkItem(msgspec.Struct, eq=False, kw_only=True):
    """One request. Times are of the monotonic clock; `inputs` are validated against the model's signature."""

    origin: Origin
    delivery: Message
    lane: Lane
    reply_to: str
    """Empty: one-way, nobody is answered."""
    request_id: str | None
    """The id of the protocol's body, which the response repeats."""
    inputs: dict[str, np.ndarray[Any, Any]]
    outputs: tuple[str, ...]
    """The outputs asked for; empty means all."""
    rows: int
    key: Hashable
    """Requests of equal keys may be joined."""
    received_s: float
    deadline_s: float
    withdrawn: bool = False
    """Its caller said that nobody waits for it any more."""

    @property
    def name(self) -> Name:
        """What a cancel must say to mean this request."""
        return self.reply_to, self.delivery.properties.correlation_id or ""
