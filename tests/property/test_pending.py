"""The table of waiting requests in virtual time: whatever happens in whatever order, each ends once and in time."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelmq.client.pending import Entry, Pending

CONFIRM_TIMEOUT_S = 1.0


@dataclass(frozen=True)
class Ask:
    patience_s: float
    idempotent: bool
    send: bool


@dataclass(frozen=True)
class Event:
    """Something that happens to the n-th request ever asked, ended or not."""

    what: str
    which: int


@dataclass(frozen=True)
class Move:
    """Another way is taken from now on; replies may still come by those before."""


@dataclass(frozen=True)
class Lose:
    """A way is gone: the one that is taken, or one so many before it."""

    reconnect: bool
    back: int


@dataclass(frozen=True)
class Again:
    """A way that takes too long is not waited for any more."""

    back: int


@dataclass(frozen=True)
class Look:
    """The timer fires, perhaps late."""


STEPS = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.001, 0.3, 0.7, 1.5, 20.0]),
        st.one_of(
            st.builds(Ask, st.sampled_from([0.0, 0.5, 1.0, 5.0, 100.0]), st.booleans(), st.booleans()),
            st.builds(Event, st.sampled_from(["sent", "confirmed", "refused", "answered", "end"]), st.integers(0, 9)),
            st.builds(Lose, st.booleans(), st.integers(0, 2)),
            st.builds(Again, st.integers(0, 2)),
            st.just(Move()),
            st.just(Look()),
        ),
    ),
    max_size=80,
)


class World:
    """A table and an account of everything that should be true of it."""

    def __init__(self) -> None:
        self.table: Pending[int] = Pending(CONFIRM_TIMEOUT_S)
        self.asked: list[Entry[int]] = []
        self.ended: set[str] = set()
        self.confirmed: set[str] = set()
        self.attempted_s: dict[str, float] = {}
        self.now = 0.0

    def ends(self, entry: Entry[int]) -> None:
        assert entry.id not in self.ended, "a request ended twice"
        assert entry.state == "ended"
        self.ended.add(entry.id)

    def ask(self, step: Ask) -> None:
        number = len(self.asked)
        deadline_s = self.now + step.patience_s
        entry = self.table.add(f"id-{number}", number, deadline_s, self.now, idempotent=step.idempotent)
        self.asked.append(entry)
        self.attempted_s[entry.id] = self.now
        if step.send:
            self.send(entry)

    def send(self, entry: Entry[int]) -> None:
        again = entry.refused
        self.table.sent(entry, self.now)
        if not again:
            self.attempted_s[entry.id] = self.now

    def happens(self, step: Event) -> None:
        if step.which >= len(self.asked):
            return
        entry = self.asked[step.which]
        if step.what == "sent":
            if entry.state == "unsent":
                self.send(entry)
        elif step.what == "confirmed":
            if entry.state == "sent":
                self.confirmed.add(entry.id)
            self.table.confirmed(entry)
        elif step.what == "refused":
            was_sent = entry.state == "sent"
            self.table.put_back(entry)
            assert not was_sent or (entry.state, entry.refused) == ("unsent", True)
        elif step.what == "answered":
            found = self.table.answered(entry.id)
            assert (found is entry) == (entry.id not in self.ended), "a reply went to somebody else, or came twice"
            if found is not None:
                assert found.payload == step.which
                self.ends(found)
        elif self.table.end(entry):
            self.ends(entry)
        else:
            assert entry.id in self.ended

    def lose(self, step: Lose) -> None:
        way = self.table.way - step.back
        states = {entry.id: entry.state for entry in self.table}
        gone = [entry for entry in self.table if entry.state != "unsent" and entry.way == way]
        assert self.table.under_way(way) == gone
        for entry in self.table.lost(self.now, way):
            assert not entry.idempotent
            self.ends(entry)
        for entry in gone:
            assert (entry.id in self.ended) != entry.idempotent
            assert entry.state == ("unsent" if entry.idempotent else "ended")
            self.attempted_s[entry.id] = self.now
        self.untouched(states, gone)
        if step.reconnect:
            for entry in self.table.unsent():
                self.send(entry)

    def again(self, step: Again) -> None:
        way = self.table.way - step.back
        states = {entry.id: entry.state for entry in self.table}
        moved = [entry for entry in self.table.under_way(way) if entry.idempotent]
        self.table.again(self.now, way)
        for entry in moved:
            assert entry.state == "unsent"
            self.attempted_s[entry.id] = self.now
        self.untouched(states, moved)

    def untouched(self, states: dict[str, str], but: list[Entry[int]]) -> None:
        others = {entry.id: entry.state for entry in self.table if entry not in but}
        assert others == {id_: state for id_, state in states.items() if id_ in others}

    def look(self) -> None:
        waiting = {entry.id: entry.state for entry in self.table}
        for entry, verdict in self.table.due(self.now):
            self.ends(entry)
            if verdict == "expired":
                assert entry.deadline_s <= self.now
            else:
                assert waiting[entry.id] == {"unsent": "unsent", "unconfirmed": "sent"}[verdict]
                assert self.now >= self.attempted_s[entry.id] + CONFIRM_TIMEOUT_S
                assert entry.id not in self.confirmed, "what the broker had taken was given up before its deadline"
        for entry in self.table:
            assert self.now < entry.deadline_s, "a request outlived its deadline"
            if entry.id not in self.confirmed:
                assert self.now < self.attempted_s[entry.id] + CONFIRM_TIMEOUT_S

    def check(self) -> None:
        assert {entry.id for entry in self.table} | self.ended == {entry.id for entry in self.asked}
        assert len(self.table) == len(self.asked) - len(self.ended)
        next_at = self.table.next_at()
        assert (next_at is None) == (len(self.table) == 0)


@given(STEPS)
def test_each_request_ends_once_in_time_and_with_its_own_reply(steps: list[tuple[float, object]]) -> None:
    world = World()
    for after_s, step in steps:
        world.now += after_s
        match step:
            case Ask():
                world.ask(step)
            case Event():
                world.happens(step)
            case Lose():
                world.lose(step)
            case Again():
                world.again(step)
            case Move():
                world.table.way += 1
            case _:
                world.look()
        world.check()
    while (next_at := world.table.next_at()) is not None:
        assert next_at < float("inf")
        world.now = max(world.now, next_at)
        world.look()
        world.check()
    assert world.ended == {entry.id for entry in world.asked}


@given(STEPS)
def test_looking_only_when_the_table_says_so_is_enough(steps: list[tuple[float, object]]) -> None:
    """The shell has one timer, set to `next_at`: no request is overdue between two of its looks."""
    world = World()
    for after_s, step in steps:
        end = world.now + after_s
        while (next_at := world.table.next_at()) is not None and next_at <= end:
            world.now = max(world.now, next_at)
            world.look()
        world.now = end
        for entry in world.table:
            assert end < entry.deadline_s
            assert entry.state == "confirmed" or end < entry.give_up_s
        match step:
            case Ask():
                world.ask(step)
            case Event():
                world.happens(step)
            case Lose():
                world.lose(step)
            case Again():
                world.again(step)
            case Move():
                world.table.way += 1
            case _:
                pass


@pytest.mark.parametrize("patience_s", [60.0, 0.5])
def test_what_has_ended_takes_no_room(patience_s: float) -> None:
    """100,000 requests answered at once leave no trail, though their deadlines are far away."""
    table: Pending[None] = Pending(CONFIRM_TIMEOUT_S)
    largest = 0
    for number in range(100_000):
        now = number * 1e-5
        entry = table.add(str(number), None, now + patience_s, now)
        table.sent(entry, now)
        if number >= 256:
            table.confirmed(entry)
            assert table.answered(str(number - 256)) is not None
        largest = max(largest, len(table._agenda))
    assert len(table) == 256
    assert largest <= 2 * 257 + 65


def test_a_flapping_connection_does_not_fill_the_agenda() -> None:
    table: Pending[None] = Pending(CONFIRM_TIMEOUT_S)
    entries = [table.add(str(number), None, 1e9, 0.0) for number in range(100)]
    for step in range(1000):
        for entry in entries:
            table.sent(entry, step * 0.1)
            table.confirmed(entry)
        assert table.lost(step * 0.1, table.way) == []
    assert len(table._agenda) <= 2 * 100 + 65
    assert table.next_at() is not None
    assert all(verdict == "expired" for _, verdict in table.due(1e9))
    assert len(table) == 0


def test_what_was_confirmed_may_wait_for_another_way_until_its_deadline() -> None:
    table: Pending[None] = Pending(CONFIRM_TIMEOUT_S)
    entries = [table.add(name, None, 100.0, 0.0) for name in "ab"]
    for entry in entries:
        table.sent(entry, 0.0)
    table.confirmed(entries[0])
    assert table.lost(0.5, table.way) == []
    assert table.due(1.5) == [(entries[1], "unsent")]
    table.sent(entries[0], 50.0)
    assert table.due(99.0) == []
    assert table.due(100.0) == [(entries[0], "expired")]
