"""The worker's side of the control conversation: tells gateways what it serves, hears what they withdraw.

An exclusive queue of its own, bound to the control exchange; answers go to the gateway's reply address. Reports are
also pushed to the gateways heard of lately when a model's state changes. Knows no lanes and no batches.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable

from modelmq import control
from modelmq.amqp import Channel, Connection, Delivery, Properties, Settled
from modelmq.control import WorkerReport
from modelmq.errors import BrokerError, InvalidRequest
from modelmq.events import Emit, MessageRefused, QueueMissing
from modelmq.messages import CANCEL_TYPE, CONTROL_EXCHANGE, DEADLINE_HEADER, HELLO_TYPE, JSON
from modelmq.worker.askers import Askers
from modelmq.worker.intake import time_left
from modelmq.worker.proving import ProvingPublisher
from modelmq.worker.reply_address import ReplyRules
from modelmq.worker.standing import keep
from modelmq.worker.tombstones import Name

Withdraw = Callable[[Name, float | None], None]
"""Of a request, and how long its deadline is away in seconds; None: the cancel does not tell."""


class Control:
    """The control queue over the life of many connections."""

    def __init__(
        self,
        queue: str,
        report: Callable[[], WorkerReport],
        withdraw: Withdraw,
        proving: ProvingPublisher,
        replies: ReplyRules,
        emit: Emit,
    ) -> None:
        self._queue = queue
        self._report = report
        self._withdraw = withdraw
        self._proving = proving
        self._replies = replies
        self._emit = emit
        self._channel: Channel | None = None
        self._askers = Askers()
        self._connections = 0
        self._pushing = False
        self._refused = False
        """Whether it was told that a gateway cannot be answered; once for each connection."""

    async def run(self, connection: Connection, stopping: asyncio.Event) -> None:
        """Listen while this connection lives."""

        async def attempt() -> None:
            channel = await connection.channel()
            # A new name each time: the broker may still hold the exclusive queue of a connection just lost.
            self._connections += 1
            queue = await channel.declare_queue(f"{self._queue}.{self._connections}", exclusive=True, auto_delete=True)
            await channel.bind_queue(queue, CONTROL_EXCHANGE)
            ended = asyncio.Event()
            await channel.consume(queue, self._on_delivery, no_ack=True, on_cancelled=lambda _: ended.set())
            channel.closed.add_done_callback(lambda _: ended.set())
            if not stopping.is_set():  # else another connection has taken over meanwhile, and answers go over that
                self._channel = channel
                self._refused = False
                await ended.wait()
            await channel.close()

        def refused(error: BrokerError, retry_in_s: float) -> None:
            self._emit(QueueMissing(CONTROL_EXCHANGE, f"run modelmq topology apply ({error.message})", retry_in_s))

        await keep(attempt, refused, stopping)

    def push_soon(self) -> None:
        """Tell the gateways heard of lately what is served now; once for many changes at a time."""
        if not self._pushing:
            self._pushing = True
            asyncio.get_running_loop().call_soon(self.push)

    def push(self) -> None:
        """The same, at once."""
        self._pushing = False
        if askers := self._askers.lately(time.monotonic()):
            body = control.encode(self._report())
            for address in askers:
                self._publish(address, None, body)

    def _on_delivery(self, delivery: Delivery) -> None:
        """A message on the control exchange; one that cannot be read is nobody's question."""
        with contextlib.suppress(BrokerError, InvalidRequest):
            properties = delivery.properties
            if properties.type == HELLO_TYPE:
                self._answer(properties)
            elif properties.type == CANCEL_TYPE:
                self._on_cancel(properties)

    def _on_cancel(self, properties: Properties) -> None:
        """Raises InvalidRequest for an address that no request here can have."""
        address, deadline = self._replies.checked(properties.reply_to), (properties.headers or {}).get(DEADLINE_HEADER)
        if address and properties.correlation_id:
            left_s = None if deadline is None else time_left(deadline, time.time())
            self._withdraw((address, properties.correlation_id), left_s)

    def _answer(self, properties: Properties) -> None:
        try:
            address = self._replies.checked(properties.reply_to)
        except InvalidRequest as error:
            self._refuse(error)
            return
        if address and self._askers.may_be_answered(address, time.monotonic()):
            self._publish(address, properties.correlation_id, control.encode(self._report()))

    def _refuse(self, error: InvalidRequest) -> None:
        """Such a gateway sees no models, and cannot be told why: most likely its topology.reply_mode is another."""
        if not self._refused:
            self._refused = True
            self._emit(MessageRefused("", "", error.code, f"A gateway's hello is not answered: {error.message}"))

    def _publish(self, address: str, correlation_id: str | None, body: bytes) -> None:
        if self._channel is None:
            return
        properties = Properties(type=HELLO_TYPE, content_type=JSON, correlation_id=correlation_id)
        if not self._proving.proven(address):
            self._proving.report(address, properties, body, lambda settled: self._after_first(address, settled))
            return
        with contextlib.suppress(BrokerError):
            self._channel.publish(self._replies.exchange, address, properties, body)

    def _after_first(self, address: str, settled: Settled) -> None:
        if settled is Settled.RETURNED:
            self._askers.forget(address)
