from __future__ import annotations

from dataclasses import dataclass

from modelmq.http.crowd import LEAST_USELESS_S, Crowd, most_with_refused


@dataclass(eq=False)
class Member:
    useless_since_s: float | None = None
    unread_since_s: float | None = None
    aborted: int = 0

    def abort(self) -> None:
        self.aborted += 1
        self.useless_since_s = self.unread_since_s = None


def aborted(members: list[Member]) -> list[int]:
    return [member.aborted for member in members]


def test_who_has_been_useless_longest_makes_room_and_who_asks_stays() -> None:
    members = [Member(5.0), Member(None), Member(2.0), Member(9.5)]
    crowd = Crowd(members)
    assert crowd.make_room(10.0)
    assert aborted(members) == [0, 0, 1, 0]
    assert crowd.make_room(10.0)
    assert aborted(members) == [1, 0, 1, 0]
    assert not crowd.make_room(10.0), "half a second is too soon"
    assert not crowd.make_room(10.1), "nobody is searched for so soon again"
    assert crowd.make_room(9.5 + LEAST_USELESS_S)
    assert aborted(members) == [1, 0, 1, 1]


def test_who_has_asked_since_it_was_found_stays() -> None:
    members = [Member(1.0), Member(2.0), Member(3.0)]
    crowd = Crowd(members)
    assert crowd.make_room(10.0)
    members[1].useless_since_s = 10.0
    assert crowd.make_room(10.2)
    assert aborted(members) == [1, 0, 1]


def test_the_slowest_reader_goes() -> None:
    members = [Member(unread_since_s=5.0), Member(unread_since_s=4.0), Member()]
    crowd = Crowd(members)
    crowd.drop_slowest_reader()
    assert aborted(members) == [0, 1, 0]
    crowd.drop_slowest_reader()
    crowd.drop_slowest_reader()
    assert aborted(members) == [1, 1, 0]


def test_few_more_are_told_that_there_are_too_many() -> None:
    assert most_with_refused(1) > 1
    assert most_with_refused(8192) <= 9300
