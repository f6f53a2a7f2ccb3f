"""Publisher confirms: which publish each of the broker's verdicts belongs to.

The broker numbers publishes by counting, so we count in the same synchronous step that writes the bytes; nothing can
come between, least of all a cancellation. A returned message names no number: it is found by its address and ids, and
its publisher hears of it at once. Pure.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable

from modelmq.amqp.properties import Properties
from modelmq.errors import ProtocolViolation


class Settled(enum.Enum):
    """What became of a publish."""

    ACKED = "acked"
    """The broker has it, in every queue it was routed to."""
    NACKED = "nacked"
    """The broker did not take it: a queue was full or failing."""
    RETURNED = "returned"
    """It was mandatory, and no queue is bound to its routing key."""
    LOST = "lost"
    """The channel or connection ended first; the broker may have it or not."""


Then = Callable[[Settled], None]


class _Publish:
    """One publish that the broker has not settled yet. `then` None: nobody waits, or it was told already."""

    __slots__ = ("correlation_id", "exchange", "mandatory", "message_id", "open", "routing_key", "then")

    def __init__(
        self, then: Then | None, exchange: str, routing_key: str, properties: Properties, mandatory: bool
    ) -> None:
        self.then = then
        self.open = True
        self.mandatory = mandatory
        self.exchange = exchange
        self.routing_key = routing_key
        self.correlation_id = properties.correlation_id
        self.message_id = properties.message_id


class ConfirmWindow:
    """The publishes of one channel in confirm mode that are not settled."""

    def __init__(self) -> None:
        self._first = 1
        self._publishes: deque[_Publish] = deque()

    def __len__(self) -> int:
        return len(self._publishes)

    def published(
        self, then: Then | None, exchange: str, routing_key: str, properties: Properties, mandatory: bool
    ) -> None:
        """Count a publish, which must be written now."""
        self._publishes.append(_Publish(then, exchange, routing_key, properties, mandatory))

    def confirmed(self, tag: int, *, multiple: bool) -> list[Then]:
        """Who is to be told of this verdict. Raises ProtocolViolation for a number that cannot be meant."""
        publishes = self._publishes
        last = self._first + len(publishes) - 1
        if multiple and tag == 0:
            tag = last
        if not self._first <= tag <= last:
            raise ProtocolViolation(f"The broker confirmed message {tag}; open are {self._first} to {last}.")
        if multiple:
            return self._through(tag)
        publish = publishes[tag - self._first]
        if not publish.open:
            raise ProtocolViolation(f"The broker confirmed message {tag} twice.")
        publish.open = False
        while publishes and not publishes[0].open:
            publishes.popleft()
            self._first += 1
        return [publish.then] if publish.then is not None else []

    def returned(self, exchange: str, routing_key: str, properties: Properties) -> Then | None:
        """Who published a message that came back; the broker's ack for it follows and tells nobody."""
        for publish in self._publishes:
            if (
                publish.then is not None
                and publish.open
                and publish.mandatory
                and publish.routing_key == routing_key
                and publish.exchange == exchange
                and publish.correlation_id == properties.correlation_id
                and publish.message_id == properties.message_id
            ):
                then, publish.then = publish.then, None
                return then
        return None

    def lost(self) -> list[Then]:
        """The channel is gone: who is to be told."""
        waiting = [publish.then for publish in self._publishes if publish.open and publish.then is not None]
        self._first += len(self._publishes)
        self._publishes.clear()
        return waiting

    def _through(self, tag: int) -> list[Then]:
        waiting: list[Then] = []
        for _ in range(tag - self._first + 1):
            publish = self._publishes.popleft()
            if publish.open and publish.then is not None:
                waiting.append(publish.then)
        self._first = tag + 1
        # What was settled singly right behind the prefix is done too.
        while self._publishes and not self._publishes[0].open:
            self._publishes.popleft()
            self._first += 1
        return waiting
