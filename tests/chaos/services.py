"""Starts the services as a user's systemd would, and again whenever they end: each its own process, user and secret."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from modelmq.broker.processes import family

_AGAIN_S = 0.1
"""systemd's RestartSec."""
_READY_S = 60.0
_END_S = 45.0


class Life(NamedTuple):
    """One process of a service: when it was ready, when it ended, and how."""

    name: str
    pid: int
    ready_at: float
    ended_at: float
    status: int


class Service:
    """Kept running until `stop`."""

    def __init__(
        self,
        name: str,
        module: str,
        environ: Mapping[str, str],
        log: Path,
        *,
        on_up: Callable[[], Awaitable[None]] | None = None,
        on_down: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.name = name
        self.lives: list[Life] = []
        self.ready_at = 0.0
        self.up = asyncio.Event()
        self._module = module
        self._environ = environ
        self._log = log
        self._on_up = on_up
        self._on_down = on_down
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = False
        self._task: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        """Of the process that runs now; 0 between two."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else 0

    def children(self) -> list[int]:
        """The processes that the service started: the models' of a worker."""
        return [each.pid for each in family(self.pid)[1:]] if self.pid else []

    async def start(self) -> None:
        """Returns when it is ready for the first time."""
        self._task = asyncio.create_task(self._keep())
        ready = asyncio.create_task(self.up.wait())
        await asyncio.wait([ready, self._task], timeout=_READY_S, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        if not self.up.is_set():
            raise RuntimeError(f"{self.name} did not become ready; its log is {self._log}.")

    def kill(self, number: int = signal.SIGKILL) -> int:
        """Send a signal to the process that runs; its pid, or 0."""
        pid = self.pid
        if pid:
            os.kill(pid, number)
        return pid

    async def stop(self) -> int:
        """End in order; by force after a while. The exit status."""
        self._stopping = True
        process = self._process
        if process is not None and process.returncode is None:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), _END_S)
            except TimeoutError:
                process.kill()
        if self._task is not None:
            await self._task
        return self.lives[-1].status if self.lives else 0

    async def _keep(self) -> None:
        while not self._stopping:
            reading, writing = os.pipe()
            with self._log.open("ab") as log:
                self._process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", *self._module.split()),
                    env={**self._environ, "MODELMQ_READY_FD": str(writing)},
                    pass_fds=(writing,),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
            os.close(writing)
            self.ready_at = 0.0
            waiting = asyncio.create_task(self._until_ready(reading))
            status = await self._process.wait()
            waiting.cancel()
            self.up.clear()
            self.lives.append(Life(self.name, self._process.pid, self.ready_at, time.monotonic(), status))
            if self._on_down is not None:
                await self._on_down()
            if not self._stopping:
                await asyncio.sleep(_AGAIN_S)

    async def _until_ready(self, reading: int) -> None:
        reader = asyncio.StreamReader()
        pipe = os.fdopen(reading, "rb", buffering=0)
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), pipe
        )
        try:
            if await reader.readline() == b"ready\n":
                self.ready_at = time.monotonic()
                if self._on_up is not None:
                    await self._on_up()
                self.up.set()
        finally:
            transport.close()
