"""Asks models over RabbitMQ and hands each caller its own answer: what gateways and the Python client send by.

The first file of the asking side: a question becomes an id and the connection of its model here, the rest is `shard`'s.
Several connections keep a slow queue from slowing the models of the others. Knows no HTTP and no tensors.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable

from modelmq import control
from modelmq.amqp import ConnectionOptions, Properties
from modelmq.client.replies import Asked, Rights, Rules
from modelmq.client.request import Request, refused, route
from modelmq.client.shard import Shard
from modelmq.control import Hello
from modelmq.errors import RequestError
from modelmq.events import Emit
from modelmq.messages import HELLO_TYPE, JSON

MAX_IN_FLIGHT = 20_000
"""Requests that may wait for an answer over one connection; more are refused as overloaded."""


class Requester:
    """Made inside a running event loop; `start`, then `ask` as often as wanted, `stop` once."""

    def __init__(  # noqa: PLR0913 - keywords, each with a default
        self,
        options: ConnectionOptions,
        *,
        service: str,
        emit: Emit,
        connections: int = 1,
        confirm_timeout_s: float = 1.0,
        on_report: Callable[[bytes], None] | None = None,
        rights: Rights | None = None,
        refused: Callable[[Request], RequestError] = refused,
        unconfirmed: int | None = None,
    ) -> None:
        """`on_report` gets each worker's answer to hello; `rights` are those of the user of `options`.

        `refused` says what it means that the broker does not take a request. `unconfirmed` messages may wait for one
        queue's confirm (see `window`); None costs least, and lets a queue that does not confirm stop its connection.
        """
        rights = rights or Rights()
        rules = Rules(options, service, emit, confirm_timeout_s, MAX_IN_FLIGHT, rights, on_report, refused, unconfirmed)
        self._shards = [Shard(rules) for _ in range(connections)]
        self._new_future = asyncio.get_running_loop().create_future
        # Unique per start, so that a reply to an earlier life of this process matches nothing.
        self._prefix = f"{secrets.token_hex(8)}-"
        self._asked = 0

    @property
    def in_flight(self) -> int:
        """Requests that wait for an answer."""
        return sum(map(len, self._shards))

    async def start(self) -> None:
        """Begin to connect; returns at once."""
        for shard in self._shards:
            await shard.start()

    async def up(self) -> None:
        """Wait until all connections are ready to publish."""
        await asyncio.gather(*(shard.up() for shard in self._shards))

    async def stop(self) -> None:
        """Close. What is pending raises Unavailable, and so does everything asked later."""
        await asyncio.gather(*(shard.stop() for shard in self._shards))

    def status(self) -> tuple[bool, str]:
        """Whether requests can be sent now, and in words."""
        problems = [problem for shard in self._shards if (problem := shard.problem())]
        if not problems:
            return True, "connected to RabbitMQ"
        if len(self._shards) == 1:
            return False, problems[0]
        return False, f"{len(problems)} of {len(self._shards)} connections: {problems[0]}"

    async def ask(self, request: Request, taken: Callable[[], None] | None = None) -> bytes:
        """The body of the model's response. Raises RequestError; cancelling it withdraws the request.

        `taken` is called unless it is refused at once.

        NotFound: no queue for the model. Overloaded: its queue is full. Unavailable: no broker, or it does not
        confirm. Expired: no answer before the deadline. Any other is the worker's own reply.
        """
        way = route(request.model, request.version, request.lane, len(self._shards))
        self._asked += 1
        answer: asyncio.Future[bytes] = self._new_future()
        shard = self._shards[way.shard]
        entry = shard.ask(f"{self._prefix}{self._asked:x}", Asked(request, way.key, way.queue, answer))
        if taken is not None:
            taken()
        try:
            return await answer
        except asyncio.CancelledError:
            shard.withdraw(entry)
            raise

    def say_hello(self, gateway: str) -> bool:
        """Ask all workers what they serve; they answer to `on_report`. False when it could not be sent."""
        properties = Properties(content_type=JSON, type=HELLO_TYPE)
        return self._shards[0].say(properties, control.encode(Hello(gateway)))
