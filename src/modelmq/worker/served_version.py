"""One version of one model being served: its requests, its process and its state.

Holds what intake gives it, decides what is computed next, and brings the process back when it ends; computing does the
rest. Knows no queues and no connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from modelmq.control import ModelReport, ModelState
from modelmq.errors import ModelLoadError
from modelmq.events import Emit, ModelLoaded, ModelLoadFailed, ModelProcessEnded
from modelmq.metadata import ModelMetadata, Signature
from modelmq.runtimes import ModelSettings, ModelSource
from modelmq.settings import WorkerSettings
from modelmq.worker import executor, restarts
from modelmq.worker.batcher import Batcher
from modelmq.worker.computing import Computing
from modelmq.worker.drops import Drops
from modelmq.worker.executor import Died, ModelProcess
from modelmq.worker.item import WorkItem
from modelmq.worker.rate import bundle_limit
from modelmq.worker.restarts import RestartCount
from modelmq.worker.tombstones import Name

_UNKNOWN = Signature("", (), (), batched=False)
_DEFAULTS = ModelSettings()


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
        self.process: ModelProcess | None = None
        self.drops = Drops(source, emit)
        self._settings = settings
        self._emit = emit
        self._owner = owner
        self._batcher: Batcher[WorkItem] = Batcher(source.batch)
        self._computing = Computing(source, settings, emit, self.drops, self)
        self._restarts = RestartCount(restarts.most_deaths(self.max_rows, settings.max_attempts))
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
    def pid(self) -> int | None:
        """The number of the model's process, while there is one."""
        return self.process.pid if self.process is not None else None

    def report(self, now: float, prefetch: int, *, draining: bool) -> ModelReport:
        """What gateways are told; `prefetch` in messages per lane."""
        source, state, computing = self.source, self.state, self._computing
        per_s, most = computing.rate.per_s(now), computing.capacity.per_s
        return ModelReport(
            name=source.name,
            version=source.version,
            state="draining" if draining and state != "failed" else state,
            reason=self.reason,
            metadata=self._metadata() if self.signature is not _UNKNOWN else None,
            pending=len(self._batcher) + computing.running,
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
        for item in waiting:
            item.withdrawn = True
        self.drops.settle(waiting)
        self._computing.withdraw(unwanted)

    def remove(self, unwanted: Callable[[WorkItem], bool]) -> list[WorkItem]:
        """Take back waiting requests; those already in the model's process stay."""
        removed = self._batcher.remove(unwanted)
        self._computing.look()
        return removed

    async def run(self) -> None:
        """Load, serve, and again, until cancelled; then the process is gone."""
        try:
            while True:
                if self.state == "failed":
                    await asyncio.sleep(self._restarts.failed())
                if self.process is not None or await self._start():
                    await self._serve()
        finally:
            self._computing.close()
            await asyncio.shield(self._stop())

    def succeeded(self) -> None:
        """A run gave outputs: earlier deaths are forgiven."""
        self._restarts.succeeded()

    def give_up(self, items: Sequence[WorkItem]) -> None:
        """These cannot be computed here any more."""
        self._owner.orphaned(self, items)

    async def revive(self, died: Died, *, held: int) -> bool:
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

    async def _start(self) -> bool:
        """A warm process; False when the model does not load, which everybody is told."""
        before_s = time.monotonic()
        source = self.source
        try:
            self.process = await executor.start(
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
        self.signature = self.process.signature
        self._emit(ModelLoaded(source.name, source.version, time.monotonic() - before_s))
        self._become("ready")
        return True

    async def _stop(self) -> None:
        process, self.process = self.process, None
        if process is not None:
            await process.close()

    def _become(self, state: ModelState, reason: str = "") -> None:
        if (state, reason) != (self.state, self.reason):
            self.state, self.reason = state, reason
            self._owner.changed()

    def _fail(self, reason: str) -> None:
        self._become("failed", reason)
        self.give_up(self._batcher.remove(lambda _: True))

    async def _serve(self) -> None:
        """Batch after batch until the process is gone and does not come back at once."""
        while self.process is not None:
            self._wake.clear()
            if not self.process.alive:
                await self.revive(Died("ended while it had nothing to do"), held=0)
                continue
            await self._owner.writable()
            if batch := self._take():
                await self._computing.compute(batch, others_wait=len(self._batcher) > 0)
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
