"""`python worker_with_fault.py`: a worker that kills itself at FAULT_STATION, the FAULT_COUNT-th time it gets there.

Started in place of `python -m modelmq.worker`, which has no such thing. Each station of a request's way is a method and
how it is wrapped; a method that is no longer there ends the process before it serves.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from modelmq import process
from modelmq.amqp import Channel, Settled
from modelmq.messages import DEAD_LETTER_EXCHANGE
from modelmq.retry_ladder import RETRY_EXCHANGE
from modelmq.worker import __main__ as worker_main
from modelmq.worker import served_queue
from modelmq.worker.batcher import Batcher
from modelmq.worker.confirmed import ConfirmedPublisher
from modelmq.worker.executor import ModelProcess
from modelmq.worker.lane import LaneChannel

STATION, COUNT, FILE = "FAULT_STATION", "FAULT_COUNT", "FAULT_FILE"
Wrap = Callable[[Any, "Fault"], Any]


class Fault:
    """Counts how often the station was reached."""

    def __init__(self, count: int, file: str) -> None:
        self.file = Path(file)
        """Made by a model that computes."""
        self._left = count

    def due(self) -> bool:
        """Reached once more; whether it was the last time."""
        self._left -= 1
        return self._left <= 0

    def strike(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


def before(original: Any, fault: Fault) -> Any:
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if fault.due():
            fault.strike()
        return original(*args, **kwargs)

    return wrapped


def after_something(original: Any, fault: Fault) -> Any:
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        if isinstance(result, tuple) and result[0] and fault.due():  # else a refusal, or no batch is ripe
            fault.strike()
        return result

    return wrapped


def while_it_computes(original: Any, fault: Fault) -> Any:
    async def wrapped(*args: Any, **kwargs: Any) -> Any:
        if not fault.due():
            return await original(*args, **kwargs)
        running = asyncio.ensure_future(original(*args, **kwargs))
        while not fault.file.exists():  # noqa: ASYNC110 - the model makes it, in another process
            await asyncio.sleep(0.001)
        fault.strike()
        return await running

    return wrapped


def after_a_run(original: Any, fault: Fault) -> Any:
    async def wrapped(*args: Any, **kwargs: Any) -> Any:
        result = await original(*args, **kwargs)
        if fault.due():
            fault.strike()
        return result

    return wrapped


def instead_of_the_ack(original: Any, fault: Fault) -> Any:
    """Dead once the broker has seen the replies before it. Until then no other ack may pass."""
    return _at_the_ack(lambda *_, **__: None, original, fault)


def after_the_ack(original: Any, fault: Fault) -> Any:
    """Dead once the broker has seen it."""
    return _at_the_ack(original, original, fault)


def _at_the_ack(when_due: Any, original: Any, fault: Fault) -> Any:
    dying: list[asyncio.Task[None]] = []

    def wrapped(channel: Channel, tag: int, *, multiple: bool = False) -> None:
        if dying or not fault.due():
            (when_due if dying else original)(channel, tag, multiple=multiple)
            return
        when_due(channel, tag, multiple=multiple)
        dying.append(asyncio.ensure_future(_strike_after_all_is_seen(channel, fault)))

    return wrapped


async def _strike_after_all_is_seen(channel: Channel, fault: Fault) -> None:
    await channel.qos(1)  # answered after everything before it on the channel was taken
    fault.strike()


def after_a_dead_copy(original: Any, fault: Fault) -> Any:
    return _after_a_copy(DEAD_LETTER_EXCHANGE, original, fault)


def after_a_copy_for_later(original: Any, fault: Fault) -> Any:
    return _after_a_copy(RETRY_EXCHANGE, original, fault)


def _after_a_copy(to: str, original: Any, fault: Fault) -> Any:
    def wrapped(self: Any, queue: str, exchange: str, key: str, properties: Any, body: bytes, then: Any) -> None:
        def settled(how: Settled) -> None:
            if exchange == to and how is Settled.ACKED and fault.due():
                fault.strike()
            then(how)

        original(self, queue, exchange, key, properties, body, settled)

    return wrapped


class Station(NamedTuple):
    """What is wrapped, and how."""

    owner: Any
    attribute: str
    wrap: Wrap


STATIONS = {
    "delivered": Station(LaneChannel, "_on_delivery", before),
    "decoded": Station(served_queue.intake, "admit", after_something),
    "batched": Station(Batcher, "take", after_something),
    "in the child": Station(ModelProcess, "run", while_it_computes),
    "run": Station(ModelProcess, "run", after_a_run),
    "reply written": Station(Channel, "ack", instead_of_the_ack),
    "dead copy confirmed": Station(ConfirmedPublisher, "publish", after_a_dead_copy),
    "ack written": Station(Channel, "ack", after_the_ack),
}

BETWEEN = {"copy for later confirmed": Station(ConfirmedPublisher, "publish", after_a_copy_for_later)}
"""Where only a request is that its model puts off."""


def main() -> int:
    """Serve until struck. Raises KeyError for a station that is none, AttributeError for a method that is none."""
    station = (STATIONS | BETWEEN)[os.environ[STATION]]
    fault = Fault(int(os.environ.get(COUNT, "1")), os.environ.get(FILE, "."))
    setattr(station.owner, station.attribute, station.wrap(getattr(station.owner, station.attribute), fault))
    return process.main("worker", worker_main.run)


if __name__ == "__main__":
    sys.exit(main())
