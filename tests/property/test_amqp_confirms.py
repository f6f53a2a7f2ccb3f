"""The window of confirms against a model that keeps every publish by its number."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelmq.amqp import confirms
from modelmq.amqp.confirms import ConfirmWindow, Settled
from modelmq.amqp.properties import Properties
from modelmq.errors import ProtocolViolation

PUBLISH = st.tuples(st.just("publish"), st.sampled_from(["k1", "k2"]), st.sampled_from(["", "m"]), st.booleans())
STEPS = st.lists(
    st.one_of(
        PUBLISH,
        PUBLISH,  # twice, so that many are open
        st.tuples(st.just("return"), st.integers(0, 40)),
        st.tuples(st.just("confirm"), st.integers(0, 40), st.booleans(), st.booleans()),
        st.tuples(st.just("wrong"), st.integers(0, 2**64 - 1)),
    ),
    min_size=5,
    max_size=60,
)


class World:
    def __init__(self) -> None:
        self.window = ConfirmWindow()
        self.told: dict[int, list[Settled]] = {}
        self.keys: dict[int, tuple[str, str, bool]] = {}
        self.open: list[int] = []
        self.returned: set[int] = set()
        self.expected: dict[int, Settled] = {}

    def publish(self, key: str, message_id: str, mandatory: bool) -> None:
        number = len(self.told) + 1
        self.told[number] = []
        self.keys[number] = key, message_id, mandatory
        self.open.append(number)
        properties = Properties(message_id=message_id)
        self.window.published(self.told[number].append, "x", key, properties, mandatory)

    def returns(self, which: int) -> None:
        """The broker returns a mandatory message: the oldest of those that nothing tells apart."""
        candidates = [number for number in self.open if self.keys[number][2] and number not in self.returned]
        if not candidates:
            return
        key, message_id, _ = self.keys[candidates[which % len(candidates)]]
        number = next(each for each in candidates if self.keys[each][:2] == (key, message_id))
        then = self.window.returned("x", key, Properties(message_id=message_id))
        assert then is not None
        then(Settled.RETURNED)
        self.returned.add(number)
        self.expected[number] = Settled.RETURNED

    def confirm(self, which: int, multiple: bool, taken: bool) -> None:
        if not self.open:
            return
        number = self.open[which % len(self.open)]
        settled = Settled.ACKED if taken else Settled.NACKED
        for then in self.window.confirmed(number, multiple=multiple):
            then(settled)
        for each in [each for each in self.open if each == number or (multiple and each < number)]:
            self.open.remove(each)
            self.expected.setdefault(each, settled)

    def wrong(self, tag: int) -> None:
        if tag in self.open:
            return
        try:
            assert self.window.confirmed(tag, multiple=False) is None
        except ProtocolViolation:
            return


@settings(deadline=None)  # the machine may be busy
@given(STEPS, st.sampled_from([0, 3, 64]))
def test_every_publish_is_told_once_and_the_right_thing(steps: list[tuple[Any, ...]], slack: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(confirms, "_SLACK", slack)
        check_steps(steps)


def check_steps(steps: list[tuple[Any, ...]]) -> None:
    world = World()
    for what, *arguments in steps:
        verb = {"publish": world.publish, "return": world.returns, "confirm": world.confirm, "wrong": world.wrong}[what]
        verb(*arguments)
        assert {number: told for number, told in world.told.items() if told} == {
            number: [settled] for number, settled in world.expected.items()
        }
        oldest = world.open[0] if world.open else len(world.told) + 1
        assert len(world.window) == len(world.told) + 1 - oldest, "what is settled is not kept"
    for then in world.window.lost():
        then(Settled.LOST)
    for number in world.open:
        world.expected.setdefault(number, Settled.LOST)
    assert world.told == {number: [settled] for number, settled in world.expected.items()}
