"""How many messages wait in the queues that gave this worker all it may hold: the broker is asked about once a second.

Of any other queue it is known without asking: nothing waits there, or the broker would have sent it. On a channel of
its own, because a broker that may not be asked (RabbitMQ 4.3.0 wants a right that no worker has) closes it; then the
depth is unknown, and nobody is harmed.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping

from modelmq.amqp import Channel, Connection
from modelmq.errors import BrokerError
from modelmq.worker.standing import keep

INTERVAL_S = 1.0
Counted = Mapping[str, int]


class DepthCounter:
    """One channel over the life of many connections; counts when asked to, not more often than INTERVAL_S."""

    def __init__(self, full: Callable[[], Iterable[str]], tell: Callable[[Counted], None]) -> None:
        """`full` names the queues to look at; `tell` hears their depths at once."""
        self._full = full
        self._tell = tell
        self._asked = asyncio.Event()

    def ask(self) -> None:
        """Somebody wants to know."""
        self._asked.set()

    async def run(self, connection: Connection, stopping: asyncio.Event) -> None:
        """Count while this connection lives."""

        async def attempt() -> None:
            channel = await connection.channel()
            channel.closed.add_done_callback(lambda _: self._asked.set())
            while not stopping.is_set():
                await self._asked.wait()
                self._asked.clear()
                await self._count(channel)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stopping.wait(), INTERVAL_S)
            await channel.close()

        await keep(attempt, lambda error, retry_in_s: None, stopping)  # noqa: ARG005 - lanes tell of missing queues

    async def _count(self, channel: Channel) -> None:
        """Raises BrokerError."""
        counted: dict[str, int] = {}
        try:
            for queue in self._full():
                counted[queue], _ = await channel.count_queue(queue)
        except BrokerError:
            self._asked.set()
            raise
        if counted:
            self._tell(counted)
