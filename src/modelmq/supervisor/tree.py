"""The services of one machine, kept running: a service that ends is started again until its budget is spent.

Stands between the flow of `up` and the single processes; stops them stage by stage. When to give up is `policy`'s.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Coroutine
from itertools import groupby

from modelmq.supervisor import log_files, processes
from modelmq.supervisor.policy import GiveUp, RestartPolicy, after_end
from modelmq.supervisor.processes import Service, ServiceSpec, how_it_ended

_USAGE_STATUS = 2
"""A service that ends so was told something that cannot be; to tell it again changes nothing."""
_LOG_CHECK_S = 15.0


class Tree:
    """Services, kept. `failed` gets a sentence once one of them cannot be kept any more."""

    def __init__(self, problem: Callable[[str], None], policy: RestartPolicy | None = None) -> None:
        self.failed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._problem = problem
        self._policy = policy or RestartPolicy()
        self._running: dict[str, Service] = {}
        self._keepers: set[asyncio.Task[None]] = set()
        self._stopping = False

    async def start(self, spec: ServiceSpec, ready_timeout_s: float) -> None:
        """Starts it and waits until it is ready; from then on it is kept. Raises ModelMQError."""
        service = self._running[spec.name] = await processes.start(spec)
        await service.until_ready(ready_timeout_s)
        self._keep(self._watched(service))
        self._keep(self._logs_shortened(spec))

    async def stop(self) -> None:
        """Drains stage after stage; no service is started again. Idempotent."""
        await self._no_more_restarts()
        services = sorted(self._running.values(), key=lambda service: service.spec.stage)
        for _, stage in groupby(services, key=lambda service: service.spec.stage):
            await asyncio.gather(*(service.stop() for service in stage))

    async def kill(self) -> None:
        """At once, in no order. May be called while `stop` waits."""
        await self._no_more_restarts()
        await asyncio.gather(*(service.kill() for service in self._running.values()))

    async def _no_more_restarts(self) -> None:
        self._stopping = True
        keepers, self._keepers = self._keepers, set()
        for keeper in keepers:
            keeper.cancel()
        await asyncio.gather(*keepers, return_exceptions=True)

    async def _watched(self, service: Service) -> None:
        spec = service.spec
        ends: tuple[float, ...] = ()
        while True:
            status = await service.ended()
            words = f"The {spec.name} {how_it_ended(status)}{service.last_words()}"
            verdict = after_end(self._policy, ends, time.monotonic(), random.random())  # noqa: S311 - jitter
            if status == _USAGE_STATUS or isinstance(verdict, GiveUp):
                self._give_up(words, verdict)
                return
            ends = verdict.ends
            self._problem(f"{words} It is started again.")
            await asyncio.sleep(verdict.delay_s)
            service = self._running[spec.name] = await processes.start(spec)

    def _give_up(self, words: str, verdict: object) -> None:
        why = ""
        if isinstance(verdict, GiveUp):
            why = f" It ended {verdict.ends_counted} times within {verdict.window_s:g} s, so it is not started again."
        if not self.failed.done():
            self.failed.set_result(words + why)

    async def _logs_shortened(self, spec: ServiceSpec) -> None:
        while True:
            await asyncio.sleep(_LOG_CHECK_S)
            await asyncio.to_thread(log_files.shorten, spec.log)

    def _keep(self, work: Coroutine[None, None, None]) -> None:
        self._keepers.add(asyncio.create_task(work))
