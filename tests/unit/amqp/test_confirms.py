from __future__ import annotations

from collections.abc import Callable

import pytest

from modelmq.amqp.confirms import ConfirmWindow, Settled, Then
from modelmq.amqp.properties import Properties
from modelmq.errors import ProtocolViolation


class Publisher:
    """A window, and the names of the publishes in it."""

    def __init__(self) -> None:
        self.window = ConfirmWindow()
        self._names: dict[Then, str] = {}

    def publish(self, name: str, key: str = "k", *, message_id: str | None = None, mandatory: bool = True) -> None:
        then: Callable[[Settled], None] = lambda _: None  # noqa: E731 - each publish needs one of its own
        self._names[then] = name
        self.window.published(then, "x", key, Properties(message_id=message_id), mandatory)

    def confirmed(self, tag: int, *, multiple: bool = False) -> list[str]:
        return [self._names[then] for then in self.window.confirmed(tag, multiple=multiple)]

    def returned(self, key: str = "k", *, message_id: str | None = None) -> str | None:
        then = self.window.returned("x", key, Properties(message_id=message_id))
        return self._names[then] if then is not None else None

    def lost(self) -> list[str]:
        return [self._names[then] for then in self.window.lost()]


@pytest.fixture
def publisher() -> Publisher:
    made = Publisher()
    for name in "abcde":
        made.publish(name)
    return made


def test_each_verdict_finds_its_publish(publisher: Publisher) -> None:
    assert publisher.confirmed(1) == ["a"]
    assert publisher.confirmed(2) == ["b"]
    assert len(publisher.window) == 3


def test_verdicts_may_come_out_of_order(publisher: Publisher) -> None:
    assert [publisher.confirmed(tag) for tag in (4, 2, 1, 5, 3)] == [["d"], ["b"], ["a"], ["e"], ["c"]]
    assert len(publisher.window) == 0


def test_multiple_means_all_up_to_it_that_are_still_open(publisher: Publisher) -> None:
    assert publisher.confirmed(2) == ["b"]
    assert publisher.confirmed(4, multiple=True) == ["a", "c", "d"]
    assert publisher.confirmed(5) == ["e"]


def test_what_was_settled_right_behind_a_prefix_goes_with_it(publisher: Publisher) -> None:
    assert publisher.confirmed(3) == ["c"]
    assert publisher.confirmed(2, multiple=True) == ["a", "b"]
    assert len(publisher.window) == 2, "c is not kept"


def test_multiple_zero_means_all(publisher: Publisher) -> None:
    assert publisher.confirmed(0, multiple=True) == list("abcde")


def test_a_publish_nobody_waits_for_is_counted_all_the_same() -> None:
    publisher = Publisher()
    publisher.window.published(None, "x", "k", Properties(), False)
    publisher.publish("b")
    assert publisher.confirmed(1) == []
    assert publisher.confirmed(2) == ["b"]


@pytest.mark.parametrize(("tag", "multiple"), [(6, False), (6, True), (0, False), (2**64 - 1, True)])
def test_a_number_that_was_never_published_is_a_violation(publisher: Publisher, tag: int, multiple: bool) -> None:
    with pytest.raises(ProtocolViolation, match="confirmed message"):
        publisher.confirmed(tag, multiple=multiple)


def test_a_second_verdict_is_a_violation(publisher: Publisher) -> None:
    publisher.confirmed(2)
    with pytest.raises(ProtocolViolation, match="twice"):
        publisher.confirmed(2)
    publisher.confirmed(1)
    with pytest.raises(ProtocolViolation, match="open are 3 to 5"):
        publisher.confirmed(1)


def test_a_returned_message_finds_its_publisher_and_its_ack_tells_nobody() -> None:
    publisher = Publisher()
    publisher.publish("a", "known")
    publisher.publish("b", "unknown")
    publisher.publish("c", "known")
    assert publisher.returned("unknown") == "b"
    assert publisher.confirmed(3, multiple=True) == ["a", "c"]


def test_equal_addresses_are_told_apart_by_their_ids() -> None:
    publisher = Publisher()
    for name in "abc":
        publisher.publish(name, message_id=name)
    assert publisher.returned(message_id="b") == "b"
    assert publisher.returned(message_id="a") == "a"
    assert publisher.confirmed(3, multiple=True) == ["c"]


def test_messages_that_nothing_tells_apart_come_back_in_the_order_they_left(publisher: Publisher) -> None:
    assert [publisher.returned() for _ in "abcde"] == list("abcde")
    assert publisher.returned() is None


def test_only_a_mandatory_message_can_come_back() -> None:
    publisher = Publisher()
    publisher.publish("a", mandatory=False)
    publisher.publish("b", mandatory=True)
    assert publisher.returned() == "b"
    assert publisher.confirmed(1) == ["a"]


def test_what_nobody_published_is_nobodys(publisher: Publisher) -> None:
    assert publisher.returned("other") is None


def test_the_end_is_told_to_all_who_wait_and_to_nobody_twice(publisher: Publisher) -> None:
    publisher.confirmed(2)
    publisher.returned()
    assert publisher.lost() == ["c", "d", "e"]
    assert publisher.lost() == []


def test_numbers_go_on_after_the_end_was_told(publisher: Publisher) -> None:
    publisher.lost()
    publisher.publish("f")
    assert publisher.confirmed(6) == ["f"]


def test_a_flood_of_returns_is_not_a_search_for_each(publisher: Publisher) -> None:
    """Behind many that wait for a slow queue: counted in looks at their names, which a search would make for each."""
    looks = 0

    class Counted(str):
        __slots__ = ()

        def __eq__(self, other: object) -> bool:
            nonlocal looks
            looks += 1
            return str.__eq__(self, other)

        __hash__ = str.__hash__

    slow = Counted("slow")
    for _ in range(1000):
        publisher.publish("waits", slow)
    for number in range(1000):
        publisher.publish(str(number), Counted("unknown"), message_id=str(number))
        assert publisher.returned("unknown", message_id=str(number)) == str(number)
        assert publisher.confirmed(1006 + number) == []
    assert looks < 20_000


def test_what_may_return_is_kept_no_longer_than_what_is_open() -> None:
    publisher = Publisher()
    for number in range(5000):
        publisher.publish("a", message_id=str(number))
        publisher.confirmed(number + 1)
        assert publisher.returned("other") is None
        assert sum(map(len, publisher.window._returnable.values())) < 200
    publisher.publish("b", message_id="b")
    assert publisher.returned(message_id="b") == "b"
