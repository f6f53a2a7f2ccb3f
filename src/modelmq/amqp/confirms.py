"""Publisher confirms: which publish each of the broker's verdicts belongs to.

The broker numbers publishes by counting, so we count in the same synchronous step that writes the bytes; nothing can
come between, least of all a cancellation. A returned message names no number: it is found by its address and ids, and
its publisher hears of it at once. Pure.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import TypeAlias

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

_Name: TypeAlias = tuple[str, str, str | None, str | None]
"""Exchange, routing key, correlation id and message id."""
_SLACK = 64
"""Publishes in the list of what may return that may be settled already, beside one for each that is open."""


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
        self._returnable: dict[_Name, deque[_Publish]] = {}
        """By what a returned message tells of itself. Made when one returns, so that it costs nothing while none does;
        what was settled since may still stand in it."""
        self._listed = 0
        """Publishes that were taken into it since it was made anew."""
        self._seen = 0
        """The number of the last of them."""

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
        then = publish.then
        publish.open, publish.then = False, None  # it may still be listed as one that can return
        while publishes and not publishes[0].open:
            publishes.popleft()
            self._first += 1
        return [then] if then is not None else []

    def returned(self, exchange: str, routing_key: str, properties: Properties) -> Then | None:
        """Who published a message that came back; the broker's ack for it follows and tells nobody."""
        self._list_new()
        name = exchange, routing_key, properties.correlation_id, properties.message_id
        alike = self._returnable.get(name)
        while alike:
            publish = alike.popleft()
            if not alike:
                del self._returnable[name]
            if publish.open and publish.then is not None:
                then, publish.then = publish.then, None
                return then
        return None

    def lost(self) -> list[Then]:
        """The channel is gone: who is to be told."""
        waiting = [publish.then for publish in self._publishes if publish.open and publish.then is not None]
        self._first += len(self._publishes)
        self._publishes.clear()
        self._returnable.clear()
        self._listed = 0
        return waiting

    def _list_new(self) -> None:
        """Each publish once, however many return: a search through all that is open would cost that for each."""
        publishes = self._publishes
        last = self._first + len(publishes) - 1
        if self._listed > 2 * len(publishes) + _SLACK:
            self._returnable.clear()
            self._listed = 0
            self._seen = self._first - 1
        new = list(islice(reversed(publishes), min(last - self._seen, len(publishes))))
        for publish in reversed(new):
            if publish.mandatory and publish.open and publish.then is not None:
                name = publish.exchange, publish.routing_key, publish.correlation_id, publish.message_id
                self._returnable.setdefault(name, deque()).append(publish)
                self._listed += 1
        self._seen = last

    def _through(self, tag: int) -> list[Then]:
        waiting: list[Then] = []
        for _ in range(tag - self._first + 1):
            publish = self._publishes.popleft()
            if publish.open and publish.then is not None:
                waiting.append(publish.then)
            publish.open, publish.then = False, None
        self._first = tag + 1
        # What was settled singly right behind the prefix is done too.
        while self._publishes and not self._publishes[0].open:
            self._publishes.popleft()
            self._first += 1
        return waiting
