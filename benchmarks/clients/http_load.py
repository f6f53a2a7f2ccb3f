"""`python -m benchmarks.clients.http_load`: a lean HTTP generator; its order is JSON on stdin, its sample on stdout.

Closed loop: so many connections, each with one request after the other. Open loop: requests leave at the times of a
Poisson process whatever comes back, over as many kept-alive connections as it takes, and each one's time counts from
the moment it was to leave. A request carries its deadline twice: for the gateway as a header, for the model as input.
"""

from __future__ import annotations

import asyncio
import gc
import json
import random
import sys
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

import uvloop

_BODY = b'{"inputs":[{"name":"x","datatype":"FP64","shape":[1],"data":[%.6f]}]}'
"""With the deadline, which has as many digits for the next centuries."""
_GRAIN_S = 0.001
_AFTER_S = 5.0
"""How long behind the last deadline answers are still waited for."""


@dataclass(frozen=True, slots=True)
class Order:
    """What to do. `per_s` 0: closed loop with `connections`; else open loop with at most so many."""

    host: str
    port: int
    path: str
    connections: int
    per_s: float
    duration_s: float
    deadline_s: float
    seed: int = 1


@dataclass(slots=True)
class Sample:
    """What came back: [seconds after the start, seconds it took] of each answer, by status; 0 is no answer at all."""

    answers: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    retry_after: dict[str, int] = field(default_factory=dict)
    """How often each value of the header came, "" for none, of 429 and 503."""
    unsent: int = 0
    """Requests that had no connection to leave by; they count as sent late if one became free."""


class _Connection(asyncio.Protocol):
    """One request at a time; hands each answer's status and header to `then`."""

    def __init__(self, idle: Callable[[_Connection], None]) -> None:
        self._idle = idle
        self._then: Callable[[int, bytes], None] | None = None
        self._transport: asyncio.Transport | None = None
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def send(self, data: bytes, then: Callable[[int, bytes], None]) -> None:
        assert self._transport is not None
        self._then = then
        self._transport.write(data)

    def data_received(self, data: bytes) -> None:
        if self._data:
            data = self._data + data
        end = data.find(b"\r\n\r\n")
        at = data.find(b"ontent-length:", 0, end) if end >= 0 else -1
        if at < 0 or len(data) < end + 4 + int(data[at + 14 : data.index(b"\r", at)]):
            self._data = data
            return
        self._data = b""
        after = data.find(b"etry-after:", 0, end)
        self._done(int(data[9:12]), data[after + 11 : data.index(b"\r", after)].strip() if after >= 0 else b"")
        self._idle(self)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._done(0, b"")

    def _done(self, status: int, retry_after: bytes) -> None:
        then, self._then = self._then, None
        if then is not None:
            then(status, retry_after)


class Generator:
    """Sends, and keeps account."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._loop = asyncio.get_running_loop()
        self._idle: deque[_Connection] = deque()
        self._late: deque[float] = deque()
        """When requests were to leave that had no connection."""
        self._start = 0.0
        self._stop = False
        self._under_way = 0
        self._all_back = asyncio.Event()
        self._head = (
            f"POST {order.path} HTTP/1.1\r\nHost: {order.host}\r\nContent-Type: application/json\r\n"
            f"Inference-Timeout-Ms: {int(order.deadline_s * 1000)}\r\nContent-Length: {len(_BODY % 1e9)}\r\n\r\n"
        ).encode()
        self.sample = Sample()

    async def run(self) -> None:
        order = self._order
        for _ in range(order.connections):
            _, made = await self._loop.create_connection(lambda: _Connection(self._on_idle), order.host, order.port)
            self._idle.append(made)
        self._start = self._loop.time()
        if order.per_s:
            await self._poisson()
        else:
            for connection in tuple(self._idle):
                self._send(connection, self._loop.time())
            self._idle.clear()
            await asyncio.sleep(order.duration_s)
        self._stop = True
        if self._under_way:
            try:
                await asyncio.wait_for(self._all_back.wait(), order.deadline_s + _AFTER_S)
            except TimeoutError:
                self.sample.answers.setdefault("0", []).extend([(order.duration_s, 1e9)] * self._under_way)

    async def _poisson(self) -> None:
        draw = random.Random(self._order.seed)
        next_at = self._start + draw.expovariate(self._order.per_s)
        end = self._start + self._order.duration_s
        while next_at < end:
            now = self._loop.time()
            while next_at <= now and next_at < end:
                if self._idle:
                    self._send(self._idle.popleft(), next_at)
                else:
                    self.sample.unsent += 1
                    self._late.append(next_at)
                next_at += draw.expovariate(self._order.per_s)
            await asyncio.sleep(max(_GRAIN_S, next_at - self._loop.time()))

    def _send(self, connection: _Connection, meant_at: float) -> None:
        body = _BODY % (time.time() + self._order.deadline_s)

        def then(status: int, retry_after: bytes) -> None:
            now = self._loop.time()
            self.sample.answers.setdefault(str(status), []).append((now - self._start, now - meant_at))
            if status in (429, 503):
                key = retry_after.decode()
                self.sample.retry_after[key] = self.sample.retry_after.get(key, 0) + 1
            self._under_way -= 1
            if self._stop and not self._under_way:
                self._all_back.set()

        self._under_way += 1
        connection.send(self._head + body, then)

    def _on_idle(self, connection: _Connection) -> None:
        if self._order.per_s:
            if self._late:
                self._send(connection, self._late.popleft())
            else:
                self._idle.append(connection)
        elif not self._stop:
            self._send(connection, self._loop.time())


async def main() -> None:
    """Do what the order says."""
    gc.disable()  # it makes no cycles, and a pause would be told as that of whom it asks
    generator = Generator(Order(**json.loads(sys.stdin.readline())))
    await generator.run()
    print(json.dumps(asdict(generator.sample)), flush=True)
    counts = Counter({status: len(answers) for status, answers in generator.sample.answers.items()})
    print(dict(counts), file=sys.stderr)


if __name__ == "__main__":
    uvloop.run(main())
