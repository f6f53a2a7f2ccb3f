"""Computes the batches of one version: run, settle, and again in halves what raised or ended the model's process.

Between the served version, which decides what is in a batch and keeps the process, and the lanes, which bring the
answers. Whose outcome is what, is decided per request. Knows no queues, no connection, and not how a process starts.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Protocol

from modelmq.errors import ModelFailed
from modelmq.events import BatchFinished, Emit, RequestFailed, RequestRetried
from modelmq.metadata import Signature
from modelmq.runtimes import ModelSettings, ModelSource
from modelmq.settings import WorkerSettings
from modelmq.worker import answers, retry
from modelmq.worker.capacity import Capacity
from modelmq.worker.drops import Drops, flush
from modelmq.worker.executor import Died, ModelProcess
from modelmq.worker.halving import Halving
from modelmq.worker.intake import Clock, log_id
from modelmq.worker.item import WorkItem
from modelmq.worker.joining import Tensors, check_rows, join
from modelmq.worker.outcome import CANCELLED, UNWANTED, Answer, Outcome
from modelmq.worker.rate import Rate
from modelmq.worker.tombstones import Name
from modelmq.worker.watch import Watch
from modelmq.worker.wire import Raised

_DEFAULTS = ModelSettings()


class _Batch:
    """Requests being computed together, how far that is, and what became of those that are finished."""

    __slots__ = ("died", "full", "items", "plan", "started_s", "tally")

    def __init__(self, items: Sequence[WorkItem], plan: Halving[WorkItem], started_s: float, *, full: bool) -> None:
        self.items = items
        self.full = full
        self.plan = plan
        self.started_s = started_s
        self.tally: Counter[str] = Counter()
        self.died = False
        """Whether a run of it ended the process."""


class Keeper(Protocol):
    """Who keeps the model's process."""

    @property
    def signature(self) -> Signature:
        """As the process told it when it had loaded."""
        ...

    @property
    def process(self) -> ModelProcess | None:
        """None while there is none."""
        ...

    def succeeded(self) -> None:
        """A run gave outputs."""
        ...

    async def revive(self, died: Died, *, held: int) -> bool:
        """Bring the process back after its end, which so many requests saw; False when that is given up."""
        ...

    def give_up(self, items: Sequence[WorkItem]) -> None:
        """These cannot be computed here any more."""
        ...


class Computing:
    """One batch at a time, and what is known of how long they take."""

    def __init__(self, source: ModelSource, settings: WorkerSettings, emit: Emit, drops: Drops, keeper: Keeper) -> None:
        self.running = 0
        """Requests without an outcome."""
        self.rate = Rate()
        self.capacity = Capacity()
        self._source = source
        self._settings = settings
        self._emit = emit
        self._drops = drops
        self._keeper = keeper
        self._batch: Sequence[WorkItem] = ()
        """The one that is being computed."""
        self._watch = Watch(self._on_unwanted)
        self._began_s = 0.0  # of the run that is under way, or of the last one

    async def compute(self, items: Sequence[WorkItem], *, others_wait: bool) -> None:
        """Run a batch, and what is left of it, until each of its requests is settled, about to be, or given back."""
        self._batch = items
        plan = Halving(items, max_attempts=self._settings.max_attempts)
        batch = _Batch(items, plan, time.monotonic(), full=others_wait or self._is_full(items))
        self.running += len(items)
        if await self._ran_through(batch):
            self._tell_finished(batch, time.monotonic())
        self._batch = ()

    def withdraw(self, unwanted: Callable[[Name], bool]) -> None:
        """Nobody waits for these requests; they are computed at most to the end of their run."""
        for item in self._batch:
            item.withdrawn = item.withdrawn or unwanted(item.name)
        self._watch.look()

    def look(self) -> None:
        """Something happened to channels through which requests came."""
        self._watch.look()

    def close(self) -> None:
        """Nothing is computed any more."""
        self._watch.close()

    @property
    def _max_run_s(self) -> float:
        """After so long a run is hung: the model's own word, or the worker's where the model says nothing."""
        own = self._source.settings.max_run_s
        return own if own != _DEFAULTS.max_run_s else self._settings.max_run_s

    def _is_full(self, items: Sequence[WorkItem]) -> bool:
        """Whether it is all that could be in it."""
        rows = sum(item.rows for item in items)
        return not self._keeper.signature.batched or rows >= self._source.batch.max_batch_size

    async def _ran_through(self, batch: _Batch) -> bool:
        """Run after run. False where all went well at once: then the end of the batch is told later."""
        items, plan = batch.items, batch.plan
        while current := plan.next():
            result = await self._run(current)
            if isinstance(result, dict):
                plan.succeeded()
                self._keeper.succeeded()
                if len(current) == len(items):
                    # In the loop's next turn: by then the model's process has the next batch to work on meanwhile.
                    asyncio.get_running_loop().call_soon(self._finish_batch, batch, result, time.monotonic())
                    return False
                self._succeed(current, result, batch.tally)
            elif isinstance(result, Raised):
                self._on_raised(current, result, batch)
            elif not await self._on_died(current, result, batch):
                break
            self._drop_unwanted(batch)
        return True

    async def _run(self, items: Sequence[WorkItem]) -> Tensors | Raised | Died:
        """The outputs of all, or why there are none."""
        self._watch.begin(items)
        process, signature = self._keeper.process, self._keeper.signature
        if process is None:
            return Died("is not running")
        try:
            inputs = join([item.inputs for item in items])
            self._began_s = time.monotonic()
            result = await process.run(inputs, max_run_s=self._max_run_s)
            if isinstance(result, dict):
                self._drops.cost.ran(len(items), time.monotonic() - self._began_s)
            if isinstance(result, dict) and signature.batched:
                check_rows(result, sum(item.rows for item in items), self._source.name)
        except ModelFailed as error:
            return Raised(error.code, error.message)
        except MemoryError:
            return Raised("failed", f"The worker has too little memory to run a batch of model {self._source.name}.")
        finally:
            self._watch.end()
        return result

    def _on_unwanted(self) -> None:
        if self._keeper.process is not None:
            self._keeper.process.nobody_waits()

    def _on_raised(self, current: Sequence[WorkItem], raised: Raised, batch: _Batch) -> None:
        if self._watch.told:  # it may, and it is nobody's fault
            batch.plan.succeeded()
            self.running -= len(current)
            spent_s = time.monotonic() - self._began_s
            unwanted = [item for item in current if item.origin.open]
            batch.tally.update(self._drops.settle(unwanted, spent_s=spent_s))
        else:
            culprit = batch.plan.raised()
            self._blame(culprit, self._said(culprit, raised), batch.tally)

    async def _on_died(self, current: Sequence[WorkItem], died: Died, batch: _Batch) -> bool:
        """Whether it can go on with the rest."""
        plan, batch.died = batch.plan, True
        self._blame(plan.died(), answers.dead(self._source, died, plan.attempts), batch.tally)
        if await self._keeper.revive(died, held=len(current)):
            return True
        rest = plan.rest()
        self.running -= len(rest)
        self._keeper.give_up(rest)
        return False

    def _finish_batch(self, batch: _Batch, outputs: Tensors, ended_s: float) -> None:
        """The batch went well at once, which is the rule."""
        self._succeed(batch.items, outputs, batch.tally)
        self._tell_finished(batch, ended_s)

    def _succeed(self, items: Sequence[WorkItem], outputs: Tensors, tally: Counter[str]) -> None:
        source, limit = self._source, self._settings.max_reply_bytes
        if self._keeper.signature.batched:
            found = answers.successes(items, outputs, source, limit)
        else:
            found = [answers.success(item, outputs, source, limit) for item in items]
        for item, answer in zip(items, found, strict=True):
            self._finish(item, answer, tally)
        flush(items, at_once=True)  # who gets them has work to do while the next messages are decoded

    def _said(self, item: WorkItem | None, raised: Raised) -> Answer:
        """What the model's words mean for the request that it was alone with."""
        if item is None or raised.after_s is None:
            return answers.raised(raised)
        draw = random.random()  # noqa: S311 - jitter
        return retry.answer(item, raised, self._source, Clock(time.monotonic(), time.time()), draw)

    def _blame(self, culprit: WorkItem | None, answer: Answer, tally: Counter[str]) -> None:
        """Finish the request that was found to be at fault, if it was."""
        if culprit is not None:
            self._finish(culprit, answer, tally)
            culprit.origin.flush()

    def _finish(self, item: WorkItem, answer: Answer, tally: Counter[str]) -> None:
        if item.withdrawn and answer.outcome is not Outcome.DEAD:
            answer = CANCELLED
        tally[answer.outcome.value] += 1
        self.running -= 1
        item.origin.settle(item.delivery, item.reply_to, answer)
        if answer.outcome is not Outcome.SUCCEEDED:
            self._tell_failed(item, answer)

    def _drop_unwanted(self, batch: _Batch) -> None:
        """Before a re-run: the broker has taken back what came through a closed channel; for others nobody waits."""
        now = time.monotonic()
        dropped = batch.plan.keep(lambda item: item.origin.open and item.deadline_s > now and not item.withdrawn)
        self.running -= len(dropped)
        batch.tally.update(self._drops.settle([item for item in dropped if item.origin.open]))

    def _tell_finished(self, batch: _Batch, ended_s: float) -> None:
        items, tally = batch.items, batch.tally
        self.rate.add(tally.total(), ended_s)
        # How much of it was computed is not known, or its time went into starting the process again.
        if batch.died or any(tally[outcome] for outcome in UNWANTED):
            self.capacity.passed(ended_s)
        else:
            self.capacity.finished(tally.total(), items[0].received_s, ended_s, full=batch.full)
        self._emit(
            BatchFinished(
                model=self._source.name,
                version=self._source.version,
                requests=len(items),
                rows=sum(item.rows for item in items),
                runs=batch.plan.runs,
                duration_s=ended_s - batch.started_s,
                queued_s=batch.started_s - items[0].received_s,
                outcomes=dict(tally),
            )
        )

    def _tell_failed(self, item: WorkItem, answer: Answer) -> None:
        source, later = self._source, answer.later
        if later is not None:
            delay_s = later.rungs_ms[0] / 1000
            self._emit(
                RequestRetried(log_id(item.delivery), source.name, source.version, later.retries, delay_s, answer.error)
            )
            return
        self._emit(RequestFailed(log_id(item.delivery), source.name, source.version, answer.code, answer.error))
