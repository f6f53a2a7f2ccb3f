"""Everything on one machine from one command: the flow of `modelmq up`, from an empty folder to serving and back.

`STEPS` is the way up; the way down is gateway, workers, RabbitMQ. Owns the process's signals. What happens within a
step is in `steps`, what a person sees is behind `Progress`.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Iterator
from typing import Any

from modelmq.errors import ModelMQError
from modelmq.supervisor import steps
from modelmq.supervisor.progress import Progress
from modelmq.supervisor.run import Run, UpOptions
from modelmq.supervisor.tree import Tree

STEPS = (
    steps.end_leftovers,
    steps.check_port,
    steps.read_own_models,
    steps.start_node_and_write_models,
    steps.apply_topology,
    steps.start_services,
    steps.await_models,
    steps.ask_a_question,
    steps.tell,
)

# A terminal that closes sends SIGHUP; what runs in it must end as orderly as by Ctrl-C.
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


async def up(options: UpOptions, progress: Progress) -> int:
    """Serve until told to stop; the exit status. Raises ModelMQError when it does not come up."""
    stop, force = asyncio.Event(), asyncio.Event()
    run = Run(options, progress, Tree(progress.problem))
    with run.state.owned(), _signals(stop, force, progress):
        try:
            return await _until_stopped(run, stop)
        except ModelMQError:
            if run.node.started:  # it takes seconds to stop, and what is wrong is told after that
                progress.note("That did not work: stopping what was started.")
            raise
        finally:
            await _down(run, force)


async def _until_stopped(run: Run, stop: asyncio.Event) -> int:
    coming_up = asyncio.create_task(_come_up(run))
    stopped = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([coming_up, stopped], return_when=asyncio.FIRST_COMPLETED)
        if coming_up.done():
            await coming_up
            outcomes: list[asyncio.Future[Any]] = [stopped, run.tree.failed, run.node.failed]
            await asyncio.wait(outcomes, return_when=asyncio.FIRST_COMPLETED)
        failed = [each for each in (run.tree.failed, run.node.failed) if each.done()]
        for each in failed:
            run.progress.problem(each.result())
        return 1 if failed else 0
    finally:
        for task in (coming_up, stopped):
            task.cancel()
        await asyncio.gather(coming_up, stopped, return_exceptions=True)


async def _come_up(run: Run) -> None:
    for step in STEPS:
        await step(run)


async def _down(run: Run, force: asyncio.Event) -> None:
    """Nothing is left running, whatever was reached on the way up. `force` cuts the waiting short."""
    draining = asyncio.create_task(run.tree.stop())
    forced = asyncio.create_task(force.wait())
    await asyncio.wait([draining, forced], return_when=asyncio.FIRST_COMPLETED)
    if not draining.done():
        await run.tree.kill()
    forced.cancel()
    await asyncio.gather(draining, forced, return_exceptions=True)
    await run.node.stop()


@contextlib.contextmanager
def _signals(stop: asyncio.Event, force: asyncio.Event, progress: Progress) -> Iterator[None]:
    """The first signal asks for an orderly end, the second for a quick one."""
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        if stop.is_set():
            force.set()
        else:
            stop.set()
            progress.stopping()

    for number in _SIGNALS:
        loop.add_signal_handler(number, on_signal)
    try:
        yield
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
