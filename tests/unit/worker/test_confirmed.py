from __future__ import annotations

from typing import Any

import pytest

from modelmq.amqp import Properties, Settled
from modelmq.client.window import LIMIT
from modelmq.errors import ChannelClosed
from modelmq.worker.confirmed import ConfirmedPublisher


class Broker:
    """The other end of the channel: confirms what and when the test says."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, Any]] = []
        self.closed = False

    def publish(
        self, exchange: str, key: str, properties: Properties, body: bytes, *, on_settled: Any, **_: Any
    ) -> None:
        if self.closed:
            raise ChannelClosed("gone")
        self.taken.append((key, on_settled))


@pytest.fixture
def broker() -> Broker:
    return Broker()


@pytest.fixture
def publisher(broker: Broker) -> ConfirmedPublisher:
    made = ConfirmedPublisher("dead", "gone")
    made._ways["dead"].channel = broker  # type: ignore[assignment]
    return made


def test_a_queue_that_does_not_confirm_gets_no_more_than_leaves_the_connection_to_others(
    broker: Broker, publisher: ConfirmedPublisher
) -> None:
    told: list[Settled] = []
    for _ in range(LIMIT + 10):
        publisher.publish("ill", "dead", "ill", Properties(), b"", told.append)
    assert len(broker.taken) == LIMIT
    publisher.publish("well", "dead", "well", Properties(), b"", told.append)
    assert broker.taken[-1][0] == "well"
    for number in range(LIMIT + 11):
        broker.taken[number][1](Settled.ACKED)
    assert told == [Settled.ACKED] * (LIMIT + 11)
    assert not publisher._held


def test_a_queue_to_which_many_keys_lead_is_one_queue(broker: Broker, publisher: ConfirmedPublisher) -> None:
    told: list[Settled] = []
    for number in range(LIMIT + 10):
        publisher.publish("ill", "dead", f"m.{number}", Properties(), b"", told.append)
    assert len(broker.taken) == LIMIT
    broker.taken[0][1](Settled.ACKED)
    assert (told, broker.taken[-1][0]) == ([Settled.ACKED], f"m.{LIMIT}")


def test_with_the_channel_all_that_was_held_back_is_lost(broker: Broker, publisher: ConfirmedPublisher) -> None:
    told: list[Settled] = []
    for _ in range(LIMIT + 10):
        publisher.publish("ill", "dead", "ill", Properties(), b"", told.append)
    broker.closed = True
    for _, on_settled in list(broker.taken):
        on_settled(Settled.LOST)
    assert told == [Settled.LOST] * (LIMIT + 10)
    assert not publisher._held


def test_an_exchange_without_a_channel_costs_its_own_messages_only(
    broker: Broker, publisher: ConfirmedPublisher
) -> None:
    told: list[Settled] = []
    publisher.publish("q", "gone", "q", Properties(), b"", told.append)
    publisher.publish("q", "dead", "q", Properties(), b"", told.append)
    broker.taken[0][1](Settled.ACKED)
    assert told == [Settled.LOST, Settled.ACKED]


def test_a_full_queue_of_one_exchange_says_nothing_of_the_channel_of_another(
    broker: Broker, publisher: ConfirmedPublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 0.0
    monkeypatch.setattr("modelmq.worker.confirmed._now_s", lambda: now_s)
    other = publisher._ways["gone"]
    other.channel = Broker()  # type: ignore[assignment]
    for tenth in range(25):
        now_s = tenth / 10
        publisher.publish("full", "dead", "full", Properties(), b"", lambda _: None)
        broker.taken[-1][1](Settled.NACKED)
        if tenth % 10 == 5:
            publisher.publish("stale", "gone", "stale", Properties(), b"", lambda _: None)
            other.channel.taken[-1][1](Settled.NACKED)  # type: ignore[union-attr]
    assert publisher._ways["dead"].over.is_set()
    assert other.over.is_set(), "after a second, whatever the full one did"
