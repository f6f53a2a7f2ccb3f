"""One version of one model being served: decide what to run, run it, settle it; and bring its process back.

Holds the requests between intake and the lane. A batch that raises, or in which the process dies, is run again in
halves until the culprit is alone; whose outcome is what, is decided per request. Knows no queues and no connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Protocol

from modelmq.control import ModelReport, ModelState
from modelmq.errors import ModelFailed, ModelLoadError
from modelmq.events import (
    BatchFinished,
    Emit,
    ModelLoaded,
    ModelLoadFailed,
    ModelProcessEnded,
    RequestFailed,
    RequestRetried,
)
from modelmq.metadata import ModelMetadata, Signature
from modelmq.runtimes import ModelSettings, ModelSource
from modelmq.settings import WorkerSettings
from modelmq.worker import answers, executor, restarts, retry
from modelmq.worker.batcher import Batcher
from modelmq.worker.capacity import Capacity
from modelmq.worker.drops import Drops, flush
from modelmq.worker.executor import Died, ModelProcess
from modelmq.worker.halving import Halving
from modelmq.worker.intake import Clock, log_id
from modelmq.worker.item import WorkItem
from modelmq.worker.joining import Tensors, check_rows, join
from modelmq.worker.outcome import CANCELLED, UNWANTED, Answer, Outcome
from modelmq.worker.rate import Rate, bundle_limit
from modelmq.worker.restarts import RestartCount
from modelmq.worker.tombstones import Name
from modelmq.worker.watch import Watch
from modelmq.worker.wire import Raised

_UNKNOWN = Signature("", (), (), batched=False)
_DEFAULTS = ModelSettings()


class _Batch:
    """Requests being computed together, how far that is, and what became of those that are finished."""

    __slots__ = ("full", "items", "plan", "started_s", "tally")

    def __init__(self, items: Sequence[WorkItem], plan: Halving[WorkItem], started_s: float, *, full: bool) -> None:
        self.items = items
        self.full = full
        self.plan = plan
        self.started_s = started_s
        self.tally: Counter[str] = Counter()


class Owner(Protocol):
    """The queue that this version's requests come from."""

    def changed(self) -> None:
        """The version's state is another one now."""
        ...

    def orphaned(self, version: ServedVersion, items: Sequence[WorkItem]) -> None:
        """The version cannot go on with these; its state says why."""
        ...

    async def writable(self) -> None:
        """Wait while the connection takes no more replies."""
        ...


class ServedVersion:
    """Its requests, its process, its state. `run` serves until cancelled."""

    def __init__(self, source: ModelSource, settings: WorkerSettings, emit: Emit, owner: Owner) -> None:
        self.source = source
        self.state: ModelState = "loading"
        self.reason = ""
        self.signature = _UNKNOWN
        self.tried = False
        """Whether it has been loaded, with success or without, at least once."""
        self._settings = settings
        self._emit = emit
        self._owner = owner
        self._batcher: Batcher[WorkItem] = Batcher(source.batch)
        self._running = 0
        self._taken: Sequence[WorkItem] = ()
        """The batch that is being computed."""
        self.drops = Drops(source, emit)
        self._watch = Watch(self._on_unwanted)
        self._restarts = RestartCount(restarts.most_deaths(self.max_rows, settings.max_attempts))
        self._rate = Rate()
        self._capacity = Capacity()
        self._process: ModelProcess | None = None
        self._began_s = 0.0  # of the run that is under way, or of the last one
        self._wake = asyncio.Event()
        self._hurry = False

    @property
    def model(self) -> str:
        """The model's name."""
        return self.source.name

    @property
    def max_rows(self) -> int:
        """The largest request, in rows."""
        return self.source.settings.max_batch_size

    @property
    def timeout_s(self) -> float:
        """The deadline of a request that names none."""
        return self.source.settings.timeout_s

    @property
    def max_run_s(self) -> float:
        """After so long a run is hung: the model's own word, or the worker's where the model says nothing."""
        own = self.source.settings.max_run_s
        return own if own != _DEFAULTS.max_run_s else self._settings.max_run_s

    @property
    def pid(self) -> int | None:
        """The model's process, while there is one."""
        return self._process.pid if self._process is not None else None

    def report(self, now: float, prefetch: int, *, draining: bool) -> ModelReport:
        """What gateways are told; `prefetch` in messages per lane."""
        source, state, per_s, most = self.source, self.state, self._rate.per_s(now), self._capacity.per_s
        return ModelReport(
            name=source.name,
            version=source.version,
            state="draining" if draining and state != "failed" else state,
            reason=self.reason,
            metadata=self._metadata() if self.signature is not _UNKNOWN else None,
            pending=len(self._batcher) + self._running,
            completed_per_s=per_s,
            capacity_per_s=most,
            bundle_limit=bundle_limit(per_s, most, prefetch, self.max_rows if self.signature.batched else 1),
            routing_key=source.settings.routing_key or "",
        )

    def _metadata(self) -> ModelMetadata:
        source, own = self.source, self.source.settings
        timeout_s = own.timeout_s if own.timeout_s != _DEFAULTS.timeout_s else None
        return ModelMetadata(source.name, source.version, self.signature, source.batch, own.idempotent, timeout_s)

    def add(self, item: WorkItem) -> None:
        """Take charge of a request."""
        self._batcher.add(item)
        self._wake.set()

    def hurry(self) -> None:
        """Wait for no fuller batches any more: nothing is coming."""
        self._hurry = True
        self._wake.set()

    def withdraw(self, unwanted: Callable[[Name], bool]) -> None:
        """Nobody waits for these requests: those that wait are not computed, others at most to the end of their run."""
        waiting = self._batcher.remove(lambda item: unwanted(item.name))
        for item in (*waiting, *self._taken):
            item.withdrawn = item.withdrawn or unwanted(item.name)
        self.drops.settle(waiting)
        self._watch.look()

    def remove(self, unwanted: Callable[[WorkItem], bool]) -> list[WorkItem]:
        """Take back waiting requests; those already in the model's process stay."""
        removed = self._batcher.remove(unwanted)
        self._watch.look()
        return removed

    def _on_unwanted(self) -> None:
        if self._process is not None:
            self._process.nobody_waits()

    async def run(self) -> None:
        """Load, serve, and again, until cancelled; then the process is gone."""
        try:
            while True:
                if self.state == "failed":
                    await asyncio.sleep(self._restarts.failed())
                if self._process is not None or await self._start():
                    await self._serve()
        finally:
            self._watch.close()
            await asyncio.shield(self._stop())

    async def _start(self) -> bool:
        """A warm process; False when the model does not load, which everybody is told."""
        before_s = time.monotonic()
        source = self.source
        try:
            self._process = await executor.start(
                source,
                load_timeout_s=self._settings.load_timeout_s,
                on_end=self._wake.set,
                max_reply_bytes=self._settings.max_reply_bytes,
            )
        except ModelLoadError as error:
            self.tried = True
            self._emit(ModelLoadFailed(source.name, source.version, error.message))
            self._fail(error.message)
            return False
        self.tried = True
        self.signature = self._process.signature
        self._emit(ModelLoaded(source.name, source.version, time.monotonic() - before_s))
        self._become("ready")
        return True

    async def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            await process.close()

    def _become(self, state: ModelState, reason: str = "") -> None:
        if (state, reason) != (self.state, self.reason):
            self.state, self.reason = state, reason
            self._owner.changed()

    def _fail(self, reason: str) -> None:
        self._become("failed", reason)
        self._owner.orphaned(self, self._batcher.remove(lambda _: True))

    async def _serve(self) -> None:
        """Batch after batch until the process is gone and does not come back at once."""
        while self._process is not None:
            self._wake.clear()
            if not self._process.alive:
                await self._revive(Died("ended while it had nothing to do"), held=0)
                continue
            await self._owner.writable()
            if batch := self._take():
                self._taken = batch
                await self._compute(batch)
                self._taken = ()
            else:
                await self._until_ripe()

    def _take(self) -> tuple[WorkItem, ...]:
        batch, expired = self._batcher.take(time.monotonic(), hurry=self._hurry)
        self.drops.settle(expired)
        return batch

    async def _until_ripe(self) -> None:
        ripe_at = self._batcher.ripe_at()
        if ripe_at is None:
            await self._wake.wait()
            return
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), max(0.0, ripe_at - time.monotonic()))

    async def _compute(self, items: Sequence[WorkItem]) -> None:
        """Run a batch, and what is left of it, until each of its requests is settled, about to be, or given back."""
        plan = Halving(items, max_attempts=self._settings.max_attempts)
        batch = _Batch(items, plan, time.monotonic(), full=self._is_full(items))
        self._running += len(items)
        while current := plan.next():
            result = await self._execute(current)
            if isinstance(result, dict):
                plan.succeeded()
                self._restarts.succeeded()
                if len(current) == len(items):
                    # In the loop's next turn: by then the model's process has the next batch to work on meanwhile.
                    asyncio.get_running_loop().call_soon(self._finish_batch, batch, result, time.monotonic())
                    return
                self._succeed(current, result, batch.tally)
            elif isinstance(result, Raised) and self._watch.told:  # it may, and it is nobody's fault
                plan.succeeded()
                self._running -= len(current)
                spent_s = time.monotonic() - self._began_s
                batch.tally.update(self.drops.settle([each for each in current if each.origin.open], spent_s=spent_s))
            elif isinstance(result, Raised):
                culprit = plan.raised()
                self._blame(culprit, self._said(culprit, result), batch.tally)
            else:
                self._blame(plan.died(), answers.dead(self.source, result, plan.attempts), batch.tally)
                if not await self._revive(result, held=len(current)):
                    rest = plan.rest()
                    self._running -= len(rest)
                    self._owner.orphaned(self, rest)
                    break
            self._drop_unwanted(plan, batch.tally)
        self._tell_finished(batch, time.monotonic())

    def _is_full(self, items: Sequence[WorkItem]) -> bool:
        """Whether it is all that could be in it, or others are left to wait: then its time tells what can be done."""
        rows = sum(item.rows for item in items)
        return not self.signature.batched or rows >= self.source.batch.max_batch_size or len(self._batcher) > 0

    async def _execute(self, items: Sequence[WorkItem]) -> Tensors | Raised | Died:
        """The outputs of all, or why there are none."""
        self._watch.begin(items)
        if self._process is None:
            return Died("is not running")
        try:
            inputs = join([item.inputs for item in items])
            self._began_s = time.monotonic()
            result = await self._process.run(inputs, max_run_s=self.max_run_s)
            if isinstance(result, dict):
                self.drops.cost.ran(len(items), time.monotonic() - self._began_s)
            if isinstance(result, dict) and self.signature.batched:
                check_rows(result, sum(item.rows for item in items), self.source.name)
        except ModelFailed as error:
            return Raised(error.code, error.message)
        except MemoryError:
            return Raised("failed", f"The worker has too little memory to run a batch of model {self.source.name}.")
        finally:
            self._watch.end()
        return result

    def _finish_batch(self, batch: _Batch, outputs: Tensors, ended_s: float) -> None:
        """The batch went well at once, which is the rule."""
        self._succeed(batch.items, outputs, batch.tally)
        self._tell_finished(batch, ended_s)

    def _succeed(self, items: Sequence[WorkItem], outputs: Tensors, tally: Counter[str]) -> None:
        limit = self._settings.max_reply_bytes
        if self.signature.batched:
            found = answers.successes(items, outputs, self.source, limit)
        else:
            found = [answers.success(item, outputs, self.source, limit) for item in items]
        for item, answer in zip(items, found, strict=True):
            self._finish(item, answer, tally)
        flush(items)

    def _said(self, item: WorkItem | None, raised: Raised) -> Answer:
        """What the model's words mean for the request that it was alone with."""
        if item is None or raised.after_s is None:
            return answers.raised(raised)
        draw = random.random()  # noqa: S311 - jitter
        return retry.answer(item, raised, self.source, Clock(time.monotonic(), time.time()), draw)

    def _blame(self, culprit: WorkItem | None, answer: Answer, tally: Counter[str]) -> None:
        """Finish the request that was found to be at fault, if it was."""
        if culprit is not None:
            self._finish(culprit, answer, tally)
            culprit.origin.flush()

    def _finish(self, item: WorkItem, answer: Answer, tally: Counter[str]) -> None:
        if item.withdrawn and answer.outcome is not Outcome.DEAD:
            answer = CANCELLED
        tally[answer.outcome.value] += 1
        self._running -= 1
        item.origin.settle(item.delivery, item.reply_to, answer)
        if answer.outcome is not Outcome.SUCCEEDED:
            self._tell_failed(item, answer)

    def _tell_finished(self, batch: _Batch, ended_s: float) -> None:
        items, tally = batch.items, batch.tally
        self._rate.add(tally.total(), ended_s)
        whole = tally.keys().isdisjoint(UNWANTED)  # else a part was not computed
        self._capacity.finished(tally.total(), items[0].received_s, ended_s, full=batch.full and whole)
        self._emit(
            BatchFinished(
                model=self.source.name,
                version=self.source.version,
                requests=len(items),
                rows=sum(item.rows for item in items),
                runs=batch.plan.runs,
                duration_s=ended_s - batch.started_s,
                queued_s=batch.started_s - items[0].received_s,
                outcomes=dict(tally),
            )
        )

    def _drop_unwanted(self, plan: Halving[WorkItem], tally: Counter[str]) -> None:
        """Before a re-run: the broker has taken back what came through a closed channel; for others nobody waits."""
        now = time.monotonic()
        dropped = plan.keep(lambda item: item.origin.open and item.deadline_s > now and not item.withdrawn)
        self._running -= len(dropped)
        tally.update(self.drops.settle([item for item in dropped if item.origin.open]))

    def _tell_failed(self, item: WorkItem, answer: Answer) -> None:
        source, later = self.source, answer.later
        if later is not None:
            delay_s = later.rungs_ms[0] / 1000
            self._emit(
                RequestRetried(log_id(item.delivery), source.name, source.version, later.retries, delay_s, answer.error)
            )
            return
        self._emit(RequestFailed(log_id(item.delivery), source.name, source.version, answer.code, answer.error))

    async def _revive(self, died: Died, *, held: int) -> bool:
        """A new process after the old one ended; False when that is given up, and then the state is failed."""
        source = self.source
        self._emit(ModelProcessEnded(source.name, source.version, died.reason, held))
        await self._stop()
        delay_s = self._restarts.died()
        if self._restarts.exhausted:
            self._fail(f"Its process {died.reason}, again and again.")
            return False
        self._become("loading", f"Its process {died.reason}.")
        await asyncio.sleep(delay_s)
        return await self._start()
