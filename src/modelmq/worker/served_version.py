"""One version of one model being served: decide what to run, run it, settle it; and bring its process back.

Holds the requests between intake and the lane. A batch that raises, or in which the process dies, is run again in
halves until the culprit is alone; whose outcome is what, is decided per request. Knows no queues and no connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from modelmq.control import ModelReport, ModelState
from modelmq.errors import ModelFailed, ModelLoadError
from modelmq.events import BatchFinished, Emit, ModelLoaded, ModelLoadFailed, ModelProcessEnded, RequestFailed
from modelmq.metadata import ModelMetadata, Signature
from modelmq.runtimes import ModelSettings, ModelSource
from modelmq.settings import WorkerSettings
from modelmq.worker import answers, executor
from modelmq.worker.batcher import Batcher
from modelmq.worker.executor import Died, ModelProcess
from modelmq.worker.halving import Halving
from modelmq.worker.intake import log_id
from modelmq.worker.item import WorkItem
from modelmq.worker.joining import Tensors, join, split
from modelmq.worker.outcome import Answer, Outcome
from modelmq.worker.rate import Rate
from modelmq.worker.restarts import RestartCount
from modelmq.worker.wire import Raised

_UNKNOWN = Signature("", (), (), batched=False)
_DEFAULT_MAX_RUN_S = ModelSettings().max_run_s


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
        self._restarts = RestartCount()
        self._rate = Rate()
        self._process: ModelProcess | None = None
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
        return own if own != _DEFAULT_MAX_RUN_S else self._settings.max_run_s

    @property
    def pid(self) -> int | None:
        """The model's process, while there is one."""
        return self._process.pid if self._process is not None else None

    def report(self, now: float, *, draining: bool) -> ModelReport:
        """What gateways are told."""
        source, state = self.source, self.state
        known = self.signature is not _UNKNOWN
        return ModelReport(
            name=source.name,
            version=source.version,
            state="draining" if draining and state != "failed" else state,
            reason=self.reason,
            metadata=ModelMetadata(source.name, source.version, self.signature, source.batch) if known else None,
            pending=len(self._batcher) + self._running,
            completed_per_s=self._rate.per_s(now),
            routing_key=source.settings.routing_key or "",
        )

    def add(self, item: WorkItem) -> None:
        """Take charge of a request."""
        self._batcher.add(item)
        self._wake.set()

    def hurry(self) -> None:
        """Wait for no fuller batches any more: nothing is coming."""
        self._hurry = True
        self._wake.set()

    def remove(self, unwanted: Callable[[WorkItem], bool]) -> list[WorkItem]:
        """Take back waiting requests; those already in the model's process stay."""
        return self._batcher.remove(unwanted)

    async def run(self) -> None:
        """Load, serve, and again, until cancelled; then the process is gone."""
        try:
            while True:
                if self.state == "failed":
                    await asyncio.sleep(self._restarts.failed())
                if self._process is not None or await self._start():
                    await self._serve()
        finally:
            await asyncio.shield(self._stop())

    async def _start(self) -> bool:
        """A warm process; False when the model does not load, which everybody is told."""
        before_s = time.monotonic()
        source = self.source
        try:
            self._process = await executor.start(
                source, load_timeout_s=self._settings.load_timeout_s, on_end=self._wake.set
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
            elif batch := self._take():
                await self._owner.writable()
                await self._compute(batch)
            else:
                await self._until_ripe()

    def _take(self) -> tuple[WorkItem, ...]:
        batch, expired = self._batcher.take(time.monotonic(), hurry=self._hurry)
        if expired:
            self._expire(expired)
        return batch

    async def _until_ripe(self) -> None:
        ripe_at = self._batcher.ripe_at()
        if ripe_at is None:
            await self._wake.wait()
            return
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), max(0.0, ripe_at - time.monotonic()))

    async def _compute(self, batch: Sequence[WorkItem]) -> None:
        """Run a batch, and what is left of it, until each of its requests is settled or given back."""
        started_s = time.monotonic()
        plan = Halving(batch, max_attempts=self._settings.max_attempts)
        tally: Counter[str] = Counter()
        self._running = len(batch)
        while current := plan.next():
            result = await self._execute(current)
            self._settle(plan, current, result, tally)
            if isinstance(result, Died) and not await self._revive(result, held=len(current)):
                self._owner.orphaned(self, plan.rest())
                break
            self._drop_unwanted(plan, tally)
        self._running = 0
        self._rate.add(tally.total(), time.monotonic())
        self._emit(
            BatchFinished(
                model=self.source.name,
                version=self.source.version,
                requests=len(batch),
                rows=sum(item.rows for item in batch),
                runs=plan.runs,
                duration_s=time.monotonic() - started_s,
                queued_s=started_s - batch[0].received_s,
                outcomes=dict(tally),
            )
        )

    async def _execute(self, items: Sequence[WorkItem]) -> list[Tensors] | Raised | Died:
        """The outputs of each request, or why there are none."""
        if self._process is None:
            return Died("is not running")
        try:
            inputs = join([item.inputs for item in items])
            result = await self._process.run(inputs, max_run_s=self.max_run_s)
            if isinstance(result, Raised | Died):
                return result
            return (
                split(result, [item.rows for item in items], self.source.name) if self.signature.batched else [result]
            )
        except ModelFailed as error:
            return Raised(error.code, error.message)
        except MemoryError:
            return Raised("failed", f"The worker has too little memory to run a batch of model {self.source.name}.")

    def _settle(
        self,
        plan: Halving[WorkItem],
        items: Sequence[WorkItem],
        result: list[Tensors] | Raised | Died,
        tally: Counter[str],
    ) -> None:
        """Tell the plan how the run went, and finish every request whose outcome is known by that."""
        if isinstance(result, Raised):
            if culprit := plan.raised():
                self._finish(culprit, answers.raised(result), tally)
        elif isinstance(result, Died):
            if culprit := plan.died():
                self._finish(culprit, answers.dead(self.source, result, plan.attempts), tally)
        else:
            plan.succeeded()
            self._restarts.succeeded()
            limit = self._settings.max_reply_bytes
            for item, outputs in zip(items, result, strict=True):
                self._finish(item, answers.success(item, outputs, self.source, limit), tally)
        _flush(items)

    def _finish(self, item: WorkItem, answer: Answer, tally: Counter[str]) -> None:
        tally[answer.outcome.value] += 1
        self._running -= 1
        item.origin.settle(item.delivery, item.reply_to, answer)
        if answer.outcome is not Outcome.SUCCEEDED:
            self._tell_failed(item, answer)

    def _drop_unwanted(self, plan: Halving[WorkItem], tally: Counter[str]) -> None:
        """Before a re-run: the broker has taken back what came through a closed channel; others may be out of time."""
        now = time.monotonic()
        dropped = plan.keep(lambda item: item.origin.open and item.deadline_s > now)
        expired = [item for item in dropped if item.origin.open]
        tally.update({Outcome.EXPIRED.value: len(expired)} if expired else {})
        self._running -= len(dropped)
        self._expire(expired)

    def _expire(self, items: Sequence[WorkItem]) -> None:
        answer = answers.expired(self.source)
        for item in items:
            item.origin.settle(item.delivery, item.reply_to, answer)
            self._tell_failed(item, answer)
        _flush(items)

    def _tell_failed(self, item: WorkItem, answer: Answer) -> None:
        source = self.source
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


def _flush(items: Iterable[WorkItem]) -> None:
    for origin in {id(item.origin): item.origin for item in items}.values():
        origin.flush()
