"""The numbers per second add up, and the page says what the verdict says."""

from __future__ import annotations

from collections import Counter
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from tests.chaos import timeline
from tests.chaos.account import Account, Struck
from tests.chaos.checker import History, check
from tests.chaos.ledger import Began, Invoke, Line, Outcome
from tests.chaos.question import expected
from tests.chaos.report import Facts, page

BEGAN = Began(100.0, 0.0, 1, "http", 1, 1)
TIMES = st.lists(st.tuples(st.floats(100, 119), st.floats(0, 0.999)), max_size=40)


def history_of(times: list[tuple[float, float]], code: str = "ok") -> History:
    lines: list[Line] = [BEGAN]
    for number, (at, took_s) in enumerate(times):
        lines.append(Invoke(at, f"c{number}", "fast", number, at + 5))
        lines.append(Outcome(at + took_s, f"c{number}", code, expected("fast", number), "gateway-0"))
    return [("http", lines)]


@given(TIMES)
def test_the_seconds_add_up(times: list[tuple[float, float]]) -> None:
    bins = timeline.seconds(history_of(times), 100.0, 120.0)
    assert sum(each.asked for each in bins) == sum(each.ok for each in bins) == len(times)
    assert all(each.p50_s <= each.p99_s <= each.longest_s <= 1 for each in bins)


@given(TIMES, st.floats(99, 121))
def test_what_is_under_way(times: list[tuple[float, float]], now: float) -> None:
    found = timeline.in_flight_at(history_of(times), [now])
    assert found == [sum(at <= now < at + took_s for at, took_s in times)]


def _facts(faults: list[Struck]) -> Facts:
    return Facts(
        seed=7, command='make chaos ARGS="--seed 7"', versions={"RabbitMQ": "3.10.8"}, offered="", duration_s=20,
        counted=faults, in_flight=[each.in_flight for each in faults], latency_s={"p50": 0.01},
        recoveries=[("child killed", "0.6 s", "1.5 s", True)], mutations=[("no <dedup>", "two outcomes", True)],
    )  # fmt: skip


def test_the_page_tells_the_verdict() -> None:
    faults = [Struck(1, "worker-kill", "worker-0", 105, 107, 40, {"processes of worker-0": 1})]
    good = history_of([(100 + number / 10, 0.1) for number in range(100)])
    bins = timeline.seconds(good, 100, 120)
    fine = page(_facts(faults), check(good, Account(), faults), faults, bins)
    assert "No promise was broken" in fine
    assert "make chaos ARGS=&quot;--seed 7&quot;" in fine
    assert "no &lt;dedup&gt;" in fine
    bad = page(_facts(faults), check(good, Account(left={"q": 1}), faults), faults, bins)
    assert "1 promises were broken" in bad
    assert "left in a queue" in bad


def test_the_picture_is_well_formed_and_has_every_fault() -> None:
    kinds = ("worker-kill", "link-cut", "memory-alarm", "broker-kill", "partition")
    faults = [Struck(n, kind, "", 101 + n, 102 + n, 40, {"a": 1}) for n, kind in enumerate(kinds)]
    told = history_of([(100 + number / 10, 0.1) for number in range(100)], "expired")
    text = page(_facts(faults), check(told, Account(), faults), faults, timeline.seconds(told, 100, 120))
    picture = ElementTree.fromstring(text[text.index("<svg") : text.index("</svg>") + 6])
    titles = Counter(title.text for title in picture.iter("title"))
    assert titles.total() == len(kinds)
    assert {text.text for text in picture.iter("text")} >= {*kinds, "0 s", "15 s"}
