"""The control conversation: a gateway says hello, every worker answers with what it serves.

A gateway publishes `hello` to `ml-control-exchange` at start and every second with its own reply address; each
worker answers to that address. So a gateway knows models without sharing a disk. Pure values and their JSON form.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from modelmq.errors import InvalidRequest
from modelmq.metadata import ModelMetadata

HELLO_INTERVAL_S = 1.0
GONE_AFTER_S = 3.0
"""A worker silent for this long is gone."""

ModelState = Literal["loading", "ready", "failed", "draining"]


class ModelReport(msgspec.Struct, frozen=True):
    """One version of one model as a worker sees it."""

    name: str
    version: str
    state: ModelState
    reason: str = ""
    metadata: ModelMetadata | None = None
    pending: int = 0
    """Requests this worker holds for the model."""
    completed_per_s: float = 0.0
    """Lately, however much there was to do."""
    capacity_per_s: float = 0.0
    """What it can do when there is enough to do; 0: not known yet."""
    bundle_limit: int = 1
    """Requests that may come in one message now (see `bundles`); 1: none but single ones."""
    routing_key: str = ""
    """The key that reaches the model beside its name; empty where there is none."""


class LaneReport(msgspec.Struct, frozen=True):
    """One lane of a model as a worker sees it at the moment of the report."""

    model: str
    lane: Literal["interactive", "bulk"]
    ready: int | None
    """Messages that wait in the queue; None: not known at this moment."""
    held: int = 0
    """Requests this worker has taken and not finished."""
    per_message: float = 1.0
    """Requests in a message, on average."""


class WorkerReport(msgspec.Struct, frozen=True):
    """A worker's answer to `hello`; `worker` is unique per process and changes when it restarts."""

    worker: str
    role: str
    models: tuple[ModelReport, ...]
    lanes: tuple[LaneReport, ...] = ()
    """A lane of a model that is not among them: nothing waits there, and this worker holds nothing of it."""


class Hello(msgspec.Struct, frozen=True):
    """A gateway's question; its reply address is the message's `reply_to`."""

    gateway: str


_hello = msgspec.json.Decoder(Hello)
_report = msgspec.json.Decoder(WorkerReport)
encode = msgspec.json.encode


def decode_hello(body: bytes) -> Hello:
    """Raises InvalidRequest."""
    try:
        return _hello.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"The hello message cannot be read: {error}.") from error


def decode_report(body: bytes) -> WorkerReport:
    """Raises InvalidRequest."""
    try:
        return _report.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"The worker's answer to hello cannot be read: {error}.") from error
