"""The private node while services use it: started, watched, started again when it ends unasked, and stopped.

What `tree` is for services, with the same budget; a node that comes back has the same address, so the services find
it by themselves. Blocking work of the node runs in threads. Knows nothing of what the node is used for.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import time
from collections.abc import Callable

import msgspec

from modelmq.broker import node
from modelmq.broker.node import NodeSpec, RunningNode
from modelmq.errors import ModelMQError
from modelmq.supervisor.policy import GiveUp, RestartPolicy, after_end


class KeptNode:
    """One node. `failed` gets a sentence once it cannot be kept any more."""

    def __init__(self, spec: NodeSpec, problem: Callable[[str], None], policy: RestartPolicy | None = None) -> None:
        self.failed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._spec = spec
        self._problem = problem
        self._policy = policy or RestartPolicy()
        self._starting: asyncio.Task[RunningNode] | None = None
        self._keeper: asyncio.Task[None] | None = None

    @property
    def started(self) -> bool:
        """Whether there is something to stop."""
        return self._starting is not None

    async def start(self) -> RunningNode:
        """Until it answers; from then on it is kept. Raises NodeError."""
        running = await self._start()
        self._spec = msgspec.structs.replace(
            self._spec,
            amqp_port=running.amqp_port or running.amqps_port,
            management_port=int(running.management_url.rpartition(":")[2]),
        )
        self._keeper = asyncio.create_task(self._kept(running))
        return running

    async def stop(self) -> None:
        """Also a node that was still booting: left alone it would outlive us. Idempotent."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)
        starting, self._starting = self._starting, None
        if starting is None:
            return
        # What cannot be started has left nothing behind, and was told already.
        with contextlib.suppress(ModelMQError):
            running = await starting
            await asyncio.to_thread(running.stop)

    async def _start(self) -> RunningNode:
        # A thread cannot be cancelled, so its task is kept for `stop` to wait for.
        self._starting = asyncio.create_task(asyncio.to_thread(node.start, self._spec))
        return await asyncio.shield(self._starting)

    async def _kept(self, running: RunningNode) -> None:
        ends: tuple[float, ...] = ()
        try:
            while True:
                await _ended(running)
                verdict = after_end(self._policy, ends, time.monotonic(), random.random())  # noqa: S311 - jitter
                words = f"RabbitMQ ended unasked (its log is {running.log_file})."
                if isinstance(verdict, GiveUp):
                    self._give_up(f"{words} It is not started again: {verdict.ends_counted} times are too many.")
                    return
                ends = verdict.ends
                self._problem(f"{words} It is started again.")
                await asyncio.to_thread(running.stop)  # what the node left of itself
                await asyncio.sleep(verdict.delay_s)
                running = await self._start()
        except ModelMQError as error:
            self._give_up(error.message)

    def _give_up(self, words: str) -> None:
        if not self.failed.done():
            self.failed.set_result(words)


async def _ended(running: RunningNode) -> None:
    """Waits without asking again and again; an adopted node is no child of ours, so there is nothing to wait for."""
    loop = asyncio.get_running_loop()
    try:
        descriptor = os.pidfd_open(running.pid)
    except ProcessLookupError:
        return
    try:
        ended = asyncio.Event()
        loop.add_reader(descriptor, ended.set)
        if running.alive():  # looked at after the descriptor was taken, so it is not its successor that is awaited
            await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
