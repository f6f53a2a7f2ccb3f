"""How long it takes until a single worker serves again: one fault at a time, under the same load before and after.

From the fault, or from when the broker's port is open again, until the successes of a second are back at nine tenths of
what was offered.
"""

from __future__ import annotations

import asyncio
import socket
import time
from bisect import bisect_left
from collections.abc import Container, Sequence
from pathlib import Path

import msgspec

from tests.chaos.account import Struck
from tests.chaos.ledger import OK, Outcome, read_all
from tests.chaos.nemesis import Nemesis
from tests.chaos.run import Say
from tests.chaos.schedule import Fault
from tests.chaos.stage import Shape, Stage

HEARTBEAT_S = 2.0
SHAPE = Shape(
    gateways=1,
    workers=1,
    http_per_s=200.0,
    client_per_s=0.0,
    pika_per_s=0.0,
    heartbeat_s=HEARTBEAT_S,
    mix=(("fast", "", 1.0),),
)
_PART = 0.9
_STEP_S, _HALF_S = 0.05, 0.5
_QUIET_S = 3.0
_WATCH_S = 14.0


class Figure(msgspec.Struct, frozen=True):
    """One fault's. Seconds; the longest of all tries."""

    what: str
    measured_s: float
    at_most_s: float
    tries: tuple[float, ...]

    @property
    def kept(self) -> bool:
        """Whether the target was."""
        return self.measured_s <= self.at_most_s

    def row(self) -> tuple[str, str, str, bool]:
        """As the page tells it."""
        tries = ", ".join(f"{each:.2f}" for each in self.tries)
        return self.what, f"{self.measured_s:.2f} s ({tries})", f"{self.at_most_s:g} s", self.kept


_FAULTS: Sequence[tuple[str, str, str, float]] = (
    ("the model's process killed", "child-kill", "worker-0", 1.5),
    ("the worker killed", "worker-kill", "worker-0", 3.0),
    ("the broker restarted, from when its port opens", "broker-restart", "", 2.0),
    ("the worker's connection half open", "link-stall", "worker", 2 * HEARTBEAT_S + 2),
    ("the gateway's connection half open", "link-stall", "gateway-0", 2 * HEARTBEAT_S + 2),
)


async def measure(folder: Path, tries: int, say: Say, kinds: Container[str] = ()) -> list[Figure]:
    """Of all faults, or of these kinds. Everything it starts has ended when it returns or raises."""
    stage = Stage(folder, SHAPE, seed=1)
    chosen = [(number, each) for number, each in enumerate(_FAULTS) if not kinds or each[1] in kinds]
    moments: list[tuple[int, float]] = []
    try:
        await stage.start()
        await stage.start_callers()
        await asyncio.sleep(_QUIET_S)
        for _ in range(tries):
            for number, (what, kind, victim, _) in chosen:
                at, striking = await _strike(stage, kind, victim)
                moments.append((number, at))
                say(what)
                await asyncio.sleep(at + _WATCH_S - time.monotonic())
                await striking
        for caller in stage.callers:
            caller.tell("stop")
            await caller.end()
    finally:
        await stage.stop()
    successes = sorted(
        line.at
        for _, lines in read_all(stage.ledgers())
        for line in lines
        if isinstance(line, Outcome) and line.code == OK
    )
    took: dict[int, list[float]] = {}
    for number, at in moments:
        took.setdefault(number, []).append(recovered_after(successes, at, SHAPE.http_per_s))
    return [Figure(what, max(took[number]), at_most_s, tuple(took[number])) for number, (what, *_, at_most_s) in chosen]


def recovered_after(successes: Sequence[float], at: float, per_s: float) -> float:
    """Seconds from `at` until successes, which are in order, come at nine tenths of this rate again.

    It is the first success of half a second that is good, with a good second behind it: a burst of what had waited
    is none.
    """

    def good(start: float, end: float) -> bool:
        return bisect_left(successes, end) - bisect_left(successes, start) >= _PART * per_s * (end - start)

    for step in range(int(_WATCH_S / _STEP_S)):
        start = at + step * _STEP_S
        # The first tenth too: else the burst at the end of a short gap would hide it.
        spans = ((0.0, 0.1), (0.0, _HALF_S), (_HALF_S, 3 * _HALF_S))
        if all(good(start + since, start + until) for since, until in spans):
            return successes[bisect_left(successes, start)] - at
    return _WATCH_S


async def _strike(stage: Stage, kind: str, victim: str) -> tuple[float, asyncio.Task[Struck]]:
    """The moment from which recovery is counted, and the fault, which may last on."""
    fault = Fault(0, kind, victim, pause_s=0.0, lasts_s=2 * HEARTBEAT_S + 4, hurried=False, dice=0.0)
    at = time.monotonic()
    striking = asyncio.create_task(Nemesis(stage).strike(fault))
    if kind == "broker-restart":
        await _until_port(stage, opened=False)
        await _until_port(stage, opened=True)
        at = time.monotonic()
    return at, striking


async def _until_port(stage: Stage, *, opened: bool) -> None:
    """The broker's, asked past every proxy."""
    async with asyncio.timeout(60):
        while await asyncio.to_thread(_connects, *stage.broker.place.targets[0]) is not opened:  # noqa: ASYNC110 - a port tells nobody when it opens
            await asyncio.sleep(0.01)


def _connects(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.2)
        return probe.connect_ex((host, port)) == 0
