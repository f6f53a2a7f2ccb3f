"""One run: load, faults until there are enough of both, rest, account, verdict."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from tests.chaos import schedule
from tests.chaos.account import AT_LEAST_IN_FLIGHT, Account, Struck
from tests.chaos.checker import History, Verdict, check
from tests.chaos.ledger import read_all
from tests.chaos.nemesis import Nemesis
from tests.chaos.schedule import Fault
from tests.chaos.stage import Shape, Stage
from tests.chaos.timeline import in_flight_at

_ENOUGH = 3 * AT_LEAST_IN_FLIGHT // 2
"""To strike at, as what the callers told is a little old."""
_WELL_PATIENCE_S = 15.0
_REST_S = 60.0
"""The longest that what is under way may take, once nothing more is asked."""

Say = Callable[[str], None]


class Goal(msgspec.Struct, frozen=True):
    """When to stop: all of it reached, or the time is over."""

    accepted: int
    faults: int
    each: int
    """Of each kind, so many that struck."""
    kinds: tuple[str, ...]
    longest_s: float


class Evidence(msgspec.Struct, frozen=True):
    """What a run leaves beside its ledgers, in `evidence.json`."""

    seed: int
    options: str
    shape: Shape
    began_at: float
    ended_at: float
    faults: tuple[Struck, ...]
    account: Account
    statuses: dict[str, int]
    """Exit statuses of services at the end."""
    rabbitmq: str
    """Its version."""


class Judged(msgspec.Struct, frozen=True):
    """A run and what is to be said of it."""

    evidence: Evidence
    history: History
    faults: tuple[Struck, ...]
    """With what the ledgers tell of them."""
    verdict: Verdict


async def run(folder: Path, shape: Shape, goal: Goal, seed: int, say: Say, *, options: str = "") -> Judged:
    """Everything it starts has ended when it returns or raises. The folder is new, and keeps the evidence.

    `options` are those that have the same run again, beside the seed.
    """
    stage = Stage(folder, shape, seed)
    left: tuple[str, ...] = ()
    faults: list[Struck] = []
    try:
        await stage.start()
        version = stage.broker.place.node.version
        say("everything is up")
        began_at = time.monotonic()
        await stage.start_callers()
        await _strike(stage, goal, faults, say)
        ended_at = time.monotonic()
        say("no more faults and no more requests; what is under way may end")
        account, statuses = await _settle(stage)
    finally:
        left = await stage.stop()
    account = msgspec.structs.replace(account, processes=left)
    evidence = Evidence(seed, options, shape, began_at, ended_at, tuple(faults), account, statuses, version)
    (folder / "evidence.json").write_bytes(msgspec.json.encode(evidence))
    return judge(folder)


def judge(folder: Path) -> Judged:
    """By what a run left, as often as wanted."""
    evidence = msgspec.json.decode((folder / "evidence.json").read_bytes(), type=Evidence)
    history = read_all(sorted((folder / "ledger").iterdir()))
    faults = with_in_flight(history, evidence.faults)
    verdict = check(history, evidence.account, faults)
    (folder / "verdict.json").write_bytes(msgspec.json.encode(verdict))
    return Judged(evidence, history, tuple(faults), verdict)


def with_in_flight(history: History, faults: Sequence[Struck]) -> list[Struck]:
    """How much was under way at each, as the ledgers tell: what callers told meanwhile was a little old."""
    counts = in_flight_at(history, [each.at for each in faults])
    return [msgspec.structs.replace(each, in_flight=count) for each, count in zip(faults, counts, strict=True)]


async def _strike(stage: Stage, goal: Goal, faults: list[Struck], say: Say) -> None:
    nemesis, end = Nemesis(stage), time.monotonic() + goal.longest_s
    coming = schedule.faults(stage.seed, goal.kinds, nemesis.victims())
    while not _reached(stage, goal, faults) and time.monotonic() < end:
        fault = next(coming)
        if len(faults) >= goal.faults and not _lacks(goal, faults, fault.kind):
            if not _lacking(goal, faults):
                await asyncio.sleep(1.0)  # only requests are missing
            continue
        await _until_well(stage, fault)
        struck = await nemesis.strike(fault)
        faults.append(struck)
        lost = ", ".join(f"{count} {what}" for what, count in struck.lost.items()) or "nothing seen"
        standing = stage.standing()
        say(
            f"{struck.number:4} {struck.kind:15} {struck.victim:10} {struck.until - struck.at:5.1f} s  "
            f"{struck.in_flight:4} in flight, {standing.accepted} accepted; lost: {lost}"
        )


def _reached(stage: Stage, goal: Goal, faults: list[Struck]) -> bool:
    if stage.standing().accepted < goal.accepted or len(faults) < goal.faults:
        return False
    return not _lacking(goal, faults)


def _lacking(goal: Goal, faults: Sequence[Struck]) -> bool:
    return any(_lacks(goal, faults, kind) for kind in goal.kinds)


def _lacks(goal: Goal, faults: Sequence[Struck], kind: str) -> bool:
    return sum(each.kind == kind and each.counts for each in faults) < goal.each


async def _until_well(stage: Stage, fault: Fault) -> None:
    """Enough is under way, and answers come, unless the fault is in a hurry; not for ever."""
    end = time.monotonic() + _WELL_PATIENCE_S
    ok = stage.standing().ok
    while time.monotonic() < end:
        await asyncio.sleep(0.3)
        standing = stage.standing()
        answering, ok = standing.ok > ok, standing.ok
        services = all(service.up.is_set() for service in stage.services.values())
        if standing.in_flight >= _ENOUGH and (fault.hurried or (answering and services)):
            break
    await asyncio.sleep(fault.pause_s)


async def _settle(stage: Stage) -> tuple[Account, dict[str, int]]:
    """Nothing more is asked: callers are answered, queues run empty, services end in order; what is left then."""
    for caller in stage.callers:
        caller.tell("resume")
        caller.tell("stop")
    end = time.monotonic() + _REST_S
    while time.monotonic() < end:
        waiting = {name: count for name, count in (await stage.broker.waiting()).items() if _must_be_empty(name)}
        if not any(waiting.values()) and stage.standing().in_flight == 0:
            break
        await asyncio.sleep(0.5)
    for caller in stage.callers:
        await caller.end()
    statuses = await stage.stop_services()
    return await stage.broker.account(), statuses


def _must_be_empty(queue: str) -> bool:
    return not queue.startswith("ml-dead-letter.") and queue != "ml-expired"


def say_to(stream: object = sys.stdout) -> Say:
    """Lines with the seconds since now."""
    began = time.monotonic()

    def say(line: str) -> None:
        stream.write(f"{time.monotonic() - began:7.1f} s  {line}\n")  # type: ignore[attr-defined]
        stream.flush()  # type: ignore[attr-defined]

    return say
