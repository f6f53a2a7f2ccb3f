"""The closed loop that all requesters share: N requests in flight, each answer compared with what was sent.

Hides the warm-up and the measured window. Knows no AMQP: a side hands it one awaitable function.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

Ask = Callable[[str, bytes], Awaitable[bytes]]
"""Sends one request (its id, its body) and returns the answer's body."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a side works: the broker, what the requester publishes to, and the queue the echo worker reads."""

    url: str
    exchange: str
    routing_key: str
    queue: str


Asking = Callable[[Address], AbstractAsyncContextManager[Ask]]
Echoing = Callable[[Address, int], AsyncIterator[None]]


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked of a side."""

    in_flight: int
    body_bytes: int
    warm_up_s: float
    duration_s: float


@dataclass(frozen=True, slots=True)
class Sample:
    """What it did in the measured window; `cpu_s` is this process's user and system time."""

    requests: int
    seconds: float
    cpu_s: float


async def closed_loop(ask: Ask, load: Load) -> Sample:
    """Keep `in_flight` requests under way for the warm-up and the window; RuntimeError for a wrong answer."""
    numbers = itertools.count()
    done = 0
    stop = False

    async def one_after_another() -> None:
        nonlocal done
        while not stop:
            number = next(numbers)
            body = number.to_bytes(8, "big") + bytes(load.body_bytes - 8)
            if await ask(f"{number:032x}", body) != body:
                raise RuntimeError(f"The answer to request {number} is not what was sent.")
            done += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(load.in_flight):
            group.create_task(one_after_another())
        await asyncio.sleep(load.warm_up_s)
        before = (done, time.monotonic(), time.process_time())
        await asyncio.sleep(load.duration_s)
        after = (done, time.monotonic(), time.process_time())
        stop = True
    return Sample(after[0] - before[0], after[1] - before[1], after[2] - before[2])


async def one_by_one(ask: Ask, body: bytes, count: int, warm_up: int) -> list[float]:
    """Seconds of each of `count` requests sent one after another, after `warm_up` unmeasured ones."""
    taken = []
    for number in range(warm_up + count):
        begun = time.perf_counter()
        if await ask(f"{number:032x}", body) != body:
            raise RuntimeError(f"The answer to request {number} is not what was sent.")
        taken.append(time.perf_counter() - begun)
    return taken[warm_up:]
