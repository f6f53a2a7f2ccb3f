"""What all callers share: the load they offer, the ledger they keep, and whom they obey.

Open loop: so many requests a second, whatever becomes of them, until too many are under way; what is then left out
is counted. Told on standard input (`stop`, `pause`, `resume`; at its end the caller ends), tells on standard output,
five times a second, how it stands.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from tests.chaos import ledger
from tests.chaos.ledger import Confirm, Invoke, Ledger, Outcome, Settled, Stray
from tests.chaos.question import PER_CALLER, Mark, Question

_TICK_S = 0.005
_FLUSH_S = 0.1
_TELL_S = 0.2
_PATIENCE_S = 4.0
"""After its deadline a request without an answer is waited for this long; then it has none."""
_MOST_AT_ONCE = 64
"""Requests started in one turn: what was missed by more is not made up for in one burst."""


class Plan(msgspec.Struct, frozen=True):
    """What one caller is told at its start."""

    number: int
    kind: ledger.CallerKind
    seed: int
    file: str
    per_s: float
    most_in_flight: int
    timeout_s: float
    mix: tuple[tuple[str, Mark, float], ...]
    """Model, mark, and its weight."""
    addresses: tuple[tuple[str, int], ...] = ()
    """Gateways in the order of preference, for HTTP."""
    url: str = ""
    """The broker, for the others; a producer may be given several, with spaces between them."""
    reply_queue: str = ""
    reply_mode: str = "direct"
    heartbeat_s: int = 1
    """Of the producer's connection, in whole seconds."""
    withdrawn: float = 0.0
    """Share of the requests that the caller withdraws."""
    mutation: str = ""


class Standing(msgspec.Struct, frozen=True):
    """A line of standard output."""

    in_flight: int
    asked: int
    ok: int
    accepted: int
    refused: int
    skipped: int


class Caller:
    """The load and the ledger of one process; `ask` of its kind sends each question."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.in_flight: dict[str, Question] = {}
        self.stopping = asyncio.Event()
        """No more is to be asked."""
        self.ending = asyncio.Event()
        """Nothing comes any more, whoever still waits."""
        self.paused = asyncio.Event()
        self._ledger = Ledger(Path(plan.file))
        self._random = random.Random(plan.seed)
        self._kinds = [(model, mark) for model, mark, _ in plan.mix]
        self._weights = [weight for *_, weight in plan.mix]
        self._asked = self._ok = self._accepted = self._refused = self._skipped = 0
        self._pause_s = 0.0
        self.given_up = 0
        """Consumers that heard nothing though answers were due."""
        self._ledger.add(
            ledger.Began(time.monotonic(), time.time(), plan.number, plan.kind, os.getpid(), plan.seed)
        )  # fmt: skip

    async def run(self, ask: Callable[[Question], Awaitable[None]], ready: Callable[[], bool] = lambda: True) -> None:
        """Ask until told to stop; then wait for what is under way; then until told to end."""
        tasks = [asyncio.create_task(each) for each in (self._keep(), self._obey())]
        asking: set[asyncio.Task[None]] = set()
        began = time.monotonic()
        behind = 0
        while not self.stopping.is_set():
            due = int((time.monotonic() - began) * self.plan.per_s) - behind
            can = min(due, _MOST_AT_ONCE, self.plan.most_in_flight - len(self.in_flight)) if ready() else 0
            for _ in range(max(0, can)):
                task = asyncio.ensure_future(ask(self.question()))
                asking.add(task)
                task.add_done_callback(asking.discard)
            self._skipped += max(0, due - max(0, can))
            behind += due
            await asyncio.sleep(_TICK_S)
        if asking:
            await asyncio.wait(asking, timeout=self.plan.timeout_s + 2 * _PATIENCE_S)
        while self.in_flight and not self.ending.is_set():
            self.give_up()
            await asyncio.sleep(_FLUSH_S)
        await self.ending.wait()
        for task in tasks:
            task.cancel()
        self._ledger.add(ledger.Ended(time.monotonic(), self._asked, self._skipped, self._pause_s, self.given_up))
        self._ledger.close()

    def question(self) -> Question:
        """The next one, on record."""
        model, mark = self._random.choices(self._kinds, self._weights)[0]
        self._asked += 1
        now = time.monotonic()
        question = Question(self.plan.number * PER_CALLER + self._asked, model, mark, now + self.plan.timeout_s)
        self.in_flight[question.id] = question
        self._ledger.add(Invoke(now, question.id, model, question.number, question.deadline, mark))
        return question

    def withdraws(self) -> bool:
        """Whether the next one is to be withdrawn."""
        return self.plan.withdrawn > 0 and self._random.random() < self.plan.withdrawn

    def ended(self, id_: str, code: str, answer: str = "", via: str = "", *, again: bool = False) -> None:
        """A request's outcome. One that has ended before is on record all the same: that is what is looked for."""
        self.in_flight.pop(id_, None)
        self._ok += code == ledger.OK
        self._refused += code in ("unavailable", "overloaded")
        self._accepted += self.plan.kind != "pika" and code in (ledger.OK, "failed", "dead")
        self._ledger.add(Outcome(time.monotonic(), id_, code, answer, via, again))

    def settled(self, id_: str, settled: Settled) -> None:
        """A publish's; what was not accepted is not waited for."""
        self._ledger.add(Confirm(time.monotonic(), id_, settled))
        self._accepted += settled == "confirmed"
        if settled != "confirmed":
            self.in_flight.pop(id_, None)

    def stray(self, via: str, said: str) -> None:
        """Something came that nobody asked for."""
        self._ledger.add(Stray(time.monotonic(), via, said[:200]))

    def give_up(self) -> None:
        """Requests whose deadline is long over have no answer. A producer's may still come; it only waits no more."""
        now = time.monotonic()
        for question in [each for each in self.in_flight.values() if each.deadline + _PATIENCE_S < now]:
            if self.plan.kind == "pika":
                del self.in_flight[question.id]
            else:
                self.ended(question.id, ledger.NONE)

    async def _keep(self) -> None:
        tell_at = flushed = time.monotonic()
        while True:
            await asyncio.sleep(_FLUSH_S)
            now = time.monotonic()
            self._pause_s = max(self._pause_s, now - flushed - _FLUSH_S)
            flushed = now
            self._ledger.flush()
            if now >= tell_at:
                tell_at = now + _TELL_S
                counts = (len(self.in_flight), self._asked, self._ok, self._accepted, self._refused, self._skipped)
                sys.stdout.buffer.write(msgspec.json.encode(Standing(*counts)) + b"\n")
                sys.stdout.buffer.flush()

    async def _obey(self) -> None:
        reader = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while line := await reader.readline():
            match line.strip():
                case b"pause":
                    self.paused.set()
                case b"resume":
                    self.paused.clear()
                case b"stop":
                    self.stopping.set()
        self.stopping.set()
        self.ending.set()
