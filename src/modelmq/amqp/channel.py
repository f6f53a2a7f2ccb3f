"""One channel: publishes, consumers, acknowledgements and the few synchronous methods; the unit of the broker's anger.

What the broker refuses closes this channel only. Publishing is synchronous (bytes are queued, in order); answers come
to callbacks, straight from the reader. Made by `Connection.channel`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from pamqp import commands

from modelmq.amqp import frames
from modelmq.amqp.confirms import ConfirmWindow, Settled, Then
from modelmq.amqp.frames import Method
from modelmq.amqp.properties import Properties, encode_properties
from modelmq.amqp.wire import Confirmed, Delivery, Event, Returned
from modelmq.errors import BrokerError, ChannelClosed, ProtocolViolation

OnDelivery = Callable[[Delivery], None]
OnCancelled = Callable[[str], None]
OnReturned = Callable[[Returned], None]

_GOODBYE = 200


class Carrier(Protocol):
    """What a channel, and who holds only the channel, needs of its connection."""

    @property
    def blocked(self) -> bool:
        """The broker takes no publishes now, for want of memory or disk."""
        ...

    @property
    def writable(self) -> bool:
        """False while more is waiting to be written than the network takes."""
        ...

    async def drain(self) -> None:
        """Wait until the connection is writable. Raises ConnectionLost."""
        ...

    @property
    def frame_max(self) -> int:
        """The largest frame, its overhead included."""
        ...

    def send(self, data: bytes) -> None:
        """Write these bytes after all before them, at the end of this turn of the event loop."""
        ...

    def flush(self) -> None:
        """Write at once what would be written at the end of this turn."""
        ...

    def release(self, number: int) -> None:
        """The channel of this number has ended."""
        ...

    def require_open(self) -> None:
        """Raises ConnectionLost when the connection has ended."""
        ...


class _Consumer:
    __slots__ = ("on_cancelled", "on_delivery")

    def __init__(self, on_delivery: OnDelivery, on_cancelled: OnCancelled | None) -> None:
        self.on_delivery = on_delivery
        self.on_cancelled = on_cancelled


class Channel:
    """An AMQP channel. `closed` resolves when it has ended: to the reason, or to None after `close`.

    Awaited methods raise ChannelClosed when the broker refuses (`reply_code` 403, 404, 405, 406 …), and ConnectionLost.
    """

    def __init__(self, number: int, connection: Carrier) -> None:
        loop = asyncio.get_running_loop()
        self.number = number
        self.closed: asyncio.Future[BrokerError | None] = loop.create_future()
        self._loop = loop
        self.connection = connection
        self.on_returned: OnReturned | None = None
        """Hears of every mandatory message that comes back, with confirms and without, before who published it."""
        self._send = connection.send
        self._frame_max = connection.frame_max
        self._consumers: dict[str, _Consumer] = {}
        self._consumers_made = 0
        self._confirms: ConfirmWindow | None = None
        self._calls: deque[tuple[type[Method], asyncio.Future[Method]]] = deque()
        self._closing = False

    # --- messages ---

    def publish(
        self,
        exchange: str,
        routing_key: str,
        properties: Properties,
        body: bytes,
        *,
        mandatory: bool = False,
        on_settled: Then | None = None,
    ) -> None:
        """Queue a message for writing. `on_settled`, in confirm mode, hears exactly once what became of it.

        Raises ChannelClosed or ConnectionLost when the channel has ended, ValueError for what AMQP cannot carry.
        """
        if self._closing:
            self._require_open()
        number = self.number
        head = frames.publish_method(number, exchange, routing_key, mandatory)
        content = frames.content(number, encode_properties(properties), body, self._frame_max)
        if self._confirms is not None:
            self._confirms.published(on_settled, exchange, routing_key, properties, mandatory)
        elif on_settled is not None:
            raise ValueError("on_settled needs confirm_select first")
        self._send(head + content)

    def ack(self, delivery_tag: int, *, multiple: bool = False) -> None:
        """The broker may forget the message, or all up to it. Raises as `publish` does."""
        if self._closing:
            self._require_open()
        self._send(frames.ack(self.number, delivery_tag, multiple=multiple))

    def nack(self, delivery_tag: int, *, multiple: bool = False, requeue: bool = True) -> None:
        """The broker must give the message to somebody else, or dead-letter it. Tag 0 with `multiple`: all."""
        if self._closing:
            self._require_open()
        self._send(frames.nack(self.number, delivery_tag, multiple=multiple, requeue=requeue))

    async def confirm_select(self) -> None:
        """From now on every publish is confirmed. Idempotent."""
        if self._confirms is None:
            self._confirms = ConfirmWindow()
            await self._call(commands.Confirm.Select(), commands.Confirm.SelectOk)

    async def qos(self, prefetch_count: int) -> None:
        """How many unacknowledged messages consumers that start after this may hold each."""
        await self._call(commands.Basic.Qos(0, prefetch_count, False), commands.Basic.QosOk)

    async def consume(
        self, queue: str, on_delivery: OnDelivery, *, no_ack: bool = False, on_cancelled: OnCancelled | None = None
    ) -> str:
        """Start a consumer; its tag. `on_delivery` is called by the reader and must not block.

        `on_cancelled` hears the tag when the broker ends the consumer, as when its queue is deleted.
        """
        self._consumers_made += 1
        tag = f"c{self._consumers_made}"
        self._consumers[tag] = _Consumer(on_delivery, on_cancelled)  # deliveries may come right behind the consume-ok
        await self._call(commands.Basic.Consume(queue=queue, consumer_tag=tag, no_ack=no_ack), commands.Basic.ConsumeOk)
        return tag

    async def cancel(self, consumer_tag: str) -> None:
        """Stop a consumer; deliveries that were on their way still come until this returns."""
        await self._call(commands.Basic.Cancel(consumer_tag), commands.Basic.CancelOk)
        self._consumers.pop(consumer_tag, None)

    # --- topology ---

    async def declare_queue(
        self,
        name: str = "",
        *,
        passive: bool = False,
        durable: bool = False,
        exclusive: bool = False,
        auto_delete: bool = False,
        arguments: Mapping[str, Any] | None = None,
    ) -> str:
        """A queue; its name, which the broker chooses for an empty one. `passive` only asks whether it is there."""
        declare = commands.Queue.Declare(
            queue=name,
            passive=passive,
            durable=durable,
            exclusive=exclusive,
            auto_delete=auto_delete,
            arguments=dict(arguments or {}),
        )
        answer = await self._call(declare, commands.Queue.DeclareOk)
        return str(answer["queue"])

    async def count_queue(self, queue: str) -> tuple[int, int]:
        """Messages that are ready in a queue, and its consumers, at this moment. ChannelClosed where it is not."""
        answer = await self._call(commands.Queue.Declare(queue=queue, passive=True), commands.Queue.DeclareOk)
        return int(answer["message_count"]), int(answer["consumer_count"])  # type: ignore[arg-type]

    async def declare_exchange(
        self,
        name: str,
        type: str = "direct",  # noqa: A002 - AMQP's own word
        *,
        passive: bool = False,
        durable: bool = False,
        auto_delete: bool = False,
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        """An exchange."""
        declare = commands.Exchange.Declare(
            exchange=name,
            exchange_type=type,
            passive=passive,
            durable=durable,
            auto_delete=auto_delete,
            arguments=dict(arguments or {}),
        )
        await self._call(declare, commands.Exchange.DeclareOk)

    async def bind_queue(
        self, queue: str, exchange: str, routing_key: str = "", *, arguments: Mapping[str, Any] | None = None
    ) -> None:
        """Messages of the exchange with this key go to the queue too."""
        bind = commands.Queue.Bind(
            queue=queue, exchange=exchange, routing_key=routing_key, arguments=dict(arguments or {})
        )
        await self._call(bind, commands.Queue.BindOk)

    async def unbind_queue(
        self, queue: str, exchange: str, routing_key: str = "", *, arguments: Mapping[str, Any] | None = None
    ) -> None:
        """The inverse of `bind_queue`."""
        unbind = commands.Queue.Unbind(
            queue=queue, exchange=exchange, routing_key=routing_key, arguments=dict(arguments or {})
        )
        await self._call(unbind, commands.Queue.UnbindOk)

    async def delete_queue(self, queue: str, *, if_unused: bool = False, if_empty: bool = False) -> int:
        """Delete a queue; how many messages were lost with it."""
        delete = commands.Queue.Delete(queue=queue, if_unused=if_unused, if_empty=if_empty)
        answer = await self._call(delete, commands.Queue.DeleteOk)
        return int(answer["message_count"])  # type: ignore[arg-type]

    async def purge_queue(self, queue: str) -> int:
        """Delete what waits in a queue; how many messages that were."""
        answer = await self._call(commands.Queue.Purge(queue=queue), commands.Queue.PurgeOk)
        return int(answer["message_count"])  # type: ignore[arg-type]

    # --- life ---

    async def open(self) -> None:
        """For the connection, once."""
        try:
            await self._call(commands.Channel.Open(), commands.Channel.OpenOk)
        except asyncio.CancelledError:
            self._say_goodbye()  # nobody will ever use it
            raise

    async def close(self) -> None:
        """End the channel; unacknowledged messages go back to their queues. Idempotent."""
        self._say_goodbye()
        await asyncio.shield(self.closed)

    def leave(self) -> None:
        """The same without waiting for the broker's word."""
        self._say_goodbye()

    def receive(self, event: Event) -> None:
        """For the connection: something came for this channel. Raises ProtocolViolation."""
        kind = type(event)
        if kind is Delivery:
            consumer = self._consumers.get(event.consumer_tag)  # type: ignore[union-attr]
            if consumer is not None:
                self._tell(consumer.on_delivery, event)
        elif kind is Confirmed:
            self._on_confirmed(event)  # type: ignore[arg-type]
        elif kind is Returned:
            self._on_returned(event)  # type: ignore[arg-type]
        else:
            self._on_method(event.method)  # type: ignore[union-attr]

    def end(self, reason: BrokerError | None) -> None:
        """The channel is gone; everybody who waits for something hears of it, and its number is free."""
        if self.closed.done():
            return
        self._closing = True
        self.closed.set_result(reason)
        self.connection.release(self.number)
        error = reason or ChannelClosed("The channel was closed.")
        while self._calls:
            _, answer = self._calls.popleft()
            if not answer.done():
                answer.set_exception(type(error)(error.message, reply_code=error.reply_code))
        for then in self._confirms.lost() if self._confirms is not None else ():
            self._tell(then, Settled.LOST)

    # --- inside ---

    def _require_open(self) -> None:
        self.connection.require_open()
        reason = self.closed.result() if self.closed.done() else None
        error = reason or ChannelClosed("The channel was closed.")
        raise type(error)(error.message, reply_code=error.reply_code)

    async def _call(self, method: Method, expected: type[Method]) -> Method:
        """Answers come in the order of the questions, also when nobody waits for one any more."""
        if self._closing:
            self._require_open()
        answer: asyncio.Future[Method] = self._loop.create_future()
        self._calls.append((expected, answer))
        self._send(frames.encode_method(method, self.number))
        return await answer

    def _on_method(self, method: Method) -> None:
        if isinstance(method, commands.Channel.CloseOk) and self._closing:
            self.end(None)
        elif isinstance(method, commands.Channel.Close):
            self._on_close(method)
        elif self._closing:
            return  # what was on its way when we said goodbye
        elif isinstance(method, commands.Basic.Cancel):
            consumer = self._consumers.pop(str(method.consumer_tag), None)
            if consumer is not None and consumer.on_cancelled is not None:
                self._tell(consumer.on_cancelled, str(method.consumer_tag))
        elif self._calls and isinstance(method, self._calls[0][0]):
            _, answer = self._calls.popleft()
            if not answer.done():
                answer.set_result(method)
        else:
            raise ProtocolViolation(f"The broker sent {method.name} on channel {self.number}, where nobody asked.")

    def _on_close(self, close: commands.Channel.Close) -> None:
        self._send(frames.encode_method(commands.Channel.CloseOk(), self.number))
        if self._closing:
            return  # both sides at one time: the answer to ours follows
        code = int(close.reply_code or 0)
        self.end(ChannelClosed(f"RabbitMQ closed the channel: {code} {close.reply_text}.", reply_code=code))

    def _on_confirmed(self, confirmed: Confirmed) -> None:
        if self._confirms is None:
            raise ProtocolViolation(f"The broker confirmed a message on channel {self.number}, which has no confirms.")
        settled = Settled.ACKED if confirmed.taken else Settled.NACKED
        for then in self._confirms.confirmed(confirmed.tag, multiple=confirmed.multiple):
            self._tell(then, settled)

    def _on_returned(self, returned: Returned) -> None:
        if self.on_returned is not None:
            self._tell(self.on_returned, returned)
        if self._confirms is None:
            return
        then = self._confirms.returned(returned.exchange, returned.routing_key, returned.properties)
        if then is not None:
            self._tell(then, Settled.RETURNED)

    def _say_goodbye(self) -> None:
        if not self._closing:
            self._closing = True
            self._consumers.clear()  # they could not acknowledge any more
            self._send(frames.encode_method(commands.Channel.Close(_GOODBYE, "", 0, 0), self.number))

    def _tell(self, listener: Callable[[Any], None], what: object) -> None:
        """A listener that raises has a bug; the connection and all others on it must not pay for that."""
        try:
            listener(what)
        except Exception as error:
            self._loop.call_exception_handler(
                {"message": f"A listener of AMQP channel {self.number} raised", "exception": error}
            )
