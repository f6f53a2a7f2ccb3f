"""When a connection is replaced: only for what two looks agree on, never for what it is made of, and with patience."""

from __future__ import annotations

from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from modelmq.amqp.renewal import FIRST_DELAY_S, MAX_DELAY_S, Renewal


class Look(NamedTuple):
    found: int
    usable: bool
    after_s: float
    works: bool


looks = st.lists(
    st.builds(
        Look,
        found=st.integers(0, 2),
        usable=st.booleans(),
        after_s=st.floats(0.0, 20.0),
        works=st.booleans(),
    ),
    max_size=60,
)


@given(looks)
def test_it_renews_only_for_what_is_new_and_was_seen_twice_and_not_before_its_time(script: list[Look]) -> None:
    renewal, used, now, seen, not_before, told = Renewal(0), 0, 0.0, 0, 0.0, False
    for look in script:
        now += look.after_s
        # What is there is usable or not as a whole, so the one that is not is another value.
        found = look.found if look.usable else -1 - look.found
        verdict = renewal.look(found, now, usable=look.usable)
        settled, seen = found == seen, found
        if not settled:
            not_before, told = 0.0, False
            assert verdict == "nothing"
        elif found == used or (look.usable and now < not_before):
            assert verdict == "nothing"
        elif not look.usable:
            assert verdict == ("nothing" if told else "tell")
            told = True
        else:
            assert verdict == "renew"
            if look.works:
                renewal, used = Renewal(found), found
            else:
                not_before = now + renewal.failed(now, 0.5)


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=40))
def test_delays_grow_to_a_bound_and_begin_anew_with_another_secret(chances: list[float]) -> None:
    renewal = Renewal("a")
    renewal.look("b", 0.0)
    delays = [renewal.failed(0.0, chance) for chance in chances]
    for number, (delay_s, chance) in enumerate(zip(delays, chances, strict=True)):
        assert delay_s == min(MAX_DELAY_S, FIRST_DELAY_S * 2.0**number) * (0.5 + chance / 2)
    renewal.look("c", 0.0)
    assert renewal.look("c", 0.0) == "renew"
    assert renewal.failed(0.0, 1.0) == FIRST_DELAY_S
