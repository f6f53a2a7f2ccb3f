"""One service as a child process: started, heard when it is ready, drained, and killed when it does not drain.

Each has a session of its own, so that Ctrl-C reaches only the supervisor, which then drains in order. What it
writes goes to its log file. Does not know when or why services are started again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec

from modelmq.broker.processes import identify
from modelmq.errors import ModelMQError
from modelmq.supervisor import launch, log_files, records
from modelmq.supervisor.records import Record

READY_VARIABLE = "MODELMQ_READY_FD"


class ServiceSpec(msgspec.Struct, frozen=True):
    """What to start. `environ` is all the environment there is; `drain_s` is how long it may take to stop.

    Services of a lower `stage` are stopped before those of a higher one are told.
    """

    name: str
    module: str
    environ: Mapping[str, str]
    log: Path
    run_dir: Path
    drain_s: float
    stage: int = 0
    role: str = ""
    address: str = ""


class Service:
    """A running child. Made by `start`."""

    def __init__(self, spec: ServiceSpec, process: asyncio.subprocess.Process, ready: asyncio.Future[bool]) -> None:
        self.spec = spec
        self._process = process
        self._ready = ready

    @property
    def pid(self) -> int:
        """The operating system's number of the process."""
        return self._process.pid

    async def until_ready(self, timeout_s: float) -> None:
        """Raises ModelMQError, with the service's last words, when it ends or stays silent instead."""
        try:
            if await asyncio.wait_for(asyncio.shield(self._ready), timeout_s):
                return
            status = await asyncio.wait_for(self.ended(), timeout_s)
        except TimeoutError:
            raise ModelMQError(
                f"The {self.spec.name} was not ready after {timeout_s:g} s; its log is {self.spec.log}."
            ) from None
        raise ModelMQError(f"The {self.spec.name} {how_it_ended(status)} before it was ready{self.last_words()}")

    async def ended(self) -> int:
        """Waits for the end; the exit status, negative for a signal."""
        status = await self._process.wait()
        records.remove(self.spec.run_dir, self.spec.name)
        return status

    def last_words(self) -> str:
        """The end of a sentence: what the service said last, and where more of it is."""
        said = log_files.last_line(self.spec.log)
        return f": {said} (Its log is {self.spec.log}.)" if said else f"; its log is {self.spec.log}."

    async def stop(self) -> None:
        """SIGTERM, then SIGKILL to all of its group when it does not drain in time. Idempotent."""
        self._signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self.ended(), self.spec.drain_s)
        except TimeoutError:
            await self.kill()

    async def kill(self) -> None:
        """At once, children included."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        await self.ended()

    def _signal(self, number: int) -> None:
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)


async def start(spec: ServiceSpec) -> Service:
    """Starts the service and puts it on record; it is not ready yet."""
    readable, writable = os.pipe()
    try:
        with log_files.opened(spec.log) as log:
            process = await asyncio.create_subprocess_exec(
                *child_command(spec.module),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**spec.environ, READY_VARIABLE: str(writable)},
                pass_fds=(writable,),
                start_new_session=True,
            )
    except BaseException:
        os.close(readable)
        raise
    finally:
        os.close(writable)
    identity = identify(process.pid)
    if identity is not None:
        records.write(spec.run_dir, Record(spec.name, identity, spec.role, spec.address))
    return Service(spec, process, _ready(readable))


def child_command(module: str, *arguments: str) -> tuple[str, ...]:
    """Runs a module of ours in a process that ends with this one."""
    return (sys.executable, "-I", "-S", launch.__file__, str(os.getpid()), module, *arguments)


def _ready(descriptor: int) -> asyncio.Future[bool]:
    """True when the service writes, False when it ends without a word."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[bool] = loop.create_future()

    def on_readable() -> None:
        said = os.read(descriptor, 64)
        loop.remove_reader(descriptor)
        os.close(descriptor)
        ready.set_result(said.startswith(b"ready"))

    os.set_blocking(descriptor, False)
    loop.add_reader(descriptor, on_readable)
    return ready


def how_it_ended(status: int) -> str:
    """`ended with status 2`, `was ended by SIGKILL`."""
    if status >= 0:
        return f"ended with status {status}"
    with contextlib.suppress(ValueError):
        return f"was ended by {signal.Signals(-status).name}"
    return f"was ended by signal {-status}"
