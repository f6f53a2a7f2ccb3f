from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelmq.events import BatchFinished, Event
from modelmq.metadata import Signature
from modelmq.runtimes import ModelSettings, ModelSource
from modelmq.settings import WorkerSettings
from modelmq.worker.computing import Computing
from modelmq.worker.drops import Drops
from modelmq.worker.executor import Died, Result
from modelmq.worker.item import WorkItem
from modelmq.worker.wire import Raised, Tensors

SOURCE = ModelSource("m", "1", Path("models/m/1/model.py"), ModelSettings())
POISON = -1.0


class Origin:
    """The lane: what it was told to settle, and how often to send it."""

    def __init__(self) -> None:
        self.open = True
        self.done: dict[str, str] = {}
        self.flushes: list[bool] = []
        """Whether each was to be at once."""

    def settle(self, delivery: Any, reply_to: str, answer: Any) -> None:
        self.done[reply_to] = answer.outcome.value

    def flush(self, *, at_once: bool = False) -> None:
        self.flushes.append(at_once)


class Model:
    """Keeps its process and is it: doubles, but for poison. As often as `lives` says it comes back after an end."""

    signature = Signature("python", (), (), batched=True)

    def __init__(self, poisoned: Result, lives: int = 0) -> None:
        self.process: Any = self
        self.runs: list[list[float]] = []
        self.given_up: list[str] = []
        self.successes = 0
        self._poisoned = poisoned
        self._lives = lives

    async def run(self, inputs: Tensors, *, max_run_s: float) -> Result:
        assert max_run_s == WorkerSettings().max_run_s
        self.runs.append(inputs["x"].tolist())
        return self._poisoned if POISON in inputs["x"] else {"y": inputs["x"] * 2}

    def succeeded(self) -> None:
        self.successes += 1

    def nobody_waits(self) -> None:
        raise AssertionError

    async def revive(self, died: Died, *, held: int) -> bool:
        assert (died, held) == (self._poisoned, len(self.runs[-1]))
        self._lives -= 1
        return self._lives >= 0

    def give_up(self, items: Sequence[WorkItem]) -> None:
        self.given_up += [item.reply_to for item in items]


Make = Callable[..., list[WorkItem]]


@pytest.fixture
def items(delivery: Any) -> Make:
    def make(origin: Any, **values: float) -> list[WorkItem]:
        return [
            WorkItem(
                origin=origin,
                delivery=delivery(),
                lane="interactive",
                reply_to=name,
                request_id=None,
                inputs={"x": np.array([value])},
                outputs=(),
                rows=1,
                key=None,
                received_s=0.0,
                deadline_s=1e12,
            )
            for name, value in values.items()
        ]

    return make


def computing_of(model: Model, events: list[Event]) -> Computing:
    return Computing(SOURCE, WorkerSettings(max_attempts=2), events.append, Drops(SOURCE, events.append), model)


async def test_what_goes_well_at_once_is_settled_in_the_next_turn_so_that_the_next_batch_need_not_wait(
    items: Make,
) -> None:
    events: list[Event] = []
    model, origin = Model(Raised("failed", "")), Origin()
    computing = computing_of(model, events)
    await computing.compute(items(origin, a=1.0, b=2.0), others_wait=False)
    assert (computing.running, origin.done, events) == (2, {}, [])
    await asyncio.sleep(0)
    assert (computing.running, origin.done, origin.flushes) == (0, {"a": "succeeded", "b": "succeeded"}, [True])
    (finished,) = events
    assert isinstance(finished, BatchFinished)
    assert (finished.requests, finished.runs, finished.outcomes) == (2, 1, {"succeeded": 2})
    computing.close()


async def test_of_a_batch_that_raises_only_the_culprit_fails(items: Make) -> None:
    model, origin = Model(Raised("failed", "poison")), Origin()
    computing = computing_of(model, [])
    await computing.compute(items(origin, a=1.0, b=POISON, c=3.0, d=4.0), others_wait=False)
    assert origin.done == {"a": "succeeded", "b": "failed", "c": "succeeded", "d": "succeeded"}
    assert model.runs == [[1, -1, 3, 4], [1, -1], [1], [-1], [3, 4]]
    assert model.successes == 2
    assert computing.running == 0
    computing.close()


async def test_who_ends_the_process_alone_as_often_as_it_may_is_dead_and_the_others_are_answered(items: Make) -> None:
    model, origin = Model(Died("exited"), lives=3), Origin()
    computing = computing_of(model, [])
    await computing.compute(items(origin, a=POISON, b=2.0), others_wait=False)
    assert origin.done == {"a": "dead", "b": "succeeded"}
    assert model.runs == [[-1, 2], [-1], [-1], [2]]
    computing.close()


@pytest.mark.parametrize(("poisoned", "shown"), [(Raised("failed", "poison"), True), (Died("exited"), False)])
async def test_time_in_which_the_process_came_back_does_not_tell_what_the_model_can_do(
    items: Make, poisoned: Result, shown: bool
) -> None:
    computing = computing_of(Model(poisoned, lives=3), [])
    batch = items(Origin(), a=POISON, b=2.0)
    for item in batch:
        item.received_s = time.monotonic() - 1
    await computing.compute(batch, others_wait=True)
    assert (computing.capacity.per_s > 0) is shown
    computing.close()


async def test_where_the_process_does_not_come_back_the_rest_is_given_up(items: Make) -> None:
    events: list[Event] = []
    model, origin = Model(Died("exited"), lives=1), Origin()
    computing = computing_of(model, events)
    await computing.compute(items(origin, a=POISON, b=2.0), others_wait=False)
    assert (origin.done, model.given_up, computing.running) == ({}, ["a", "b"], 0)
    assert [type(event) for event in events] == [BatchFinished]
    computing.close()


async def test_who_is_withdrawn_meanwhile_is_not_run_again(items: Make) -> None:
    model, origin = Model(Died("exited"), lives=1), Origin()
    computing = computing_of(model, [])
    revive = model.revive

    async def withdrawing(died: Died, *, held: int) -> bool:
        computing.withdraw(lambda name: name[0] == "b")
        return await revive(died, held=held)

    model.revive = withdrawing  # type: ignore[method-assign]
    await computing.compute(items(origin, a=POISON, b=2.0, c=3.0), others_wait=False)
    assert origin.done["b"] == "cancelled"
    assert all(2.0 not in run for run in model.runs[1:])
    assert model.given_up == ["a", "c"]
    computing.close()


async def test_a_model_that_raises_because_nobody_waits_is_not_to_blame(items: Make) -> None:
    """The deadline passes in the middle of the run; what came through a channel that is gone is not settled."""
    model, here, gone = Model(Raised("failed", "I was told")), Origin(), Origin()
    computing, told = computing_of(model, []), asyncio.Event()
    run = model.run

    async def until_told(inputs: Tensors, *, max_run_s: float) -> Result:
        gone.open = False
        computing.look()
        await told.wait()
        return await run(inputs, max_run_s=max_run_s)

    model.run, model.nobody_waits = until_told, told.set  # type: ignore[method-assign]
    for batch in (items(here, a=POISON), items(gone, b=POISON)):
        batch[0].deadline_s = time.monotonic() + 0.01
        async with asyncio.timeout(10):
            await computing.compute(batch, others_wait=False)
        told.clear()
    assert (model.runs, computing.running) == ([[POISON], [POISON]], 0)
    assert (here.done, gone.done) == ({"a": "expired"}, {})
    computing.close()


@pytest.mark.parametrize(("others_wait", "known"), [(True, True), (False, False)])
async def test_what_it_can_do_is_learnt_while_others_wait(items: Make, others_wait: bool, known: bool) -> None:
    model, origin = Model(Raised("failed", "")), Origin()
    computing = computing_of(model, [])
    batch = items(origin, a=1.0, b=2.0)
    for item in batch:
        item.received_s = time.monotonic() - 1.0  # busy since
    await computing.compute(batch, others_wait=others_wait)
    await asyncio.sleep(0)
    assert (computing.capacity.per_s > 0) is known
    computing.close()


async def test_what_was_not_computed_says_nothing_of_what_it_can_do(
    items: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, origin = Model(Raised("failed", "")), Origin()
    computing = computing_of(model, [])
    told: list[str] = []
    monkeypatch.setattr(computing.capacity, "finished", lambda *_, **__: told.append("finished"))
    monkeypatch.setattr(computing.capacity, "passed", lambda _: told.append("passed"))
    batch = items(origin, a=1.0, b=2.0, c=3.0)
    batch[1].withdrawn = True
    await computing.compute(batch, others_wait=True)
    await asyncio.sleep(0)
    assert told == ["passed"]
    computing.close()
