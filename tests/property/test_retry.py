"""A request that its model puts off again and again: bounded, never before its time, never beyond its deadline."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from modelmq.amqp import Properties
from modelmq.retry_ladder import at_least
from modelmq.runtimes import ModelSettings, ModelSource
from modelmq.worker import retry
from modelmq.worker.intake import Clock
from modelmq.worker.item import WorkItem
from modelmq.worker.outcome import Outcome
from modelmq.worker.parts import Part
from modelmq.worker.wire import Raised

START_UNIX_S = 1e9


def source(max_retries: int) -> ModelSource:
    return ModelSource("m", "1", Path("m/1/model.py"), ModelSettings(max_retries=max_retries))


def item(properties: Properties, deadline_s: float) -> WorkItem:
    message = Part(1, False, "m", properties, b"body", 4)
    return WorkItem(
        origin=None,  # type: ignore[arg-type] - nothing here looks at it
        delivery=message,
        lane="bulk",
        reply_to="",
        request_id=None,
        inputs={},
        outputs=(),
        rows=1,
        key=None,
        received_s=0.0,
        deadline_s=deadline_s,
    )


@given(
    st.lists(st.tuples(st.floats(0.001, 600), st.floats(0, 1, exclude_max=True), st.text()), min_size=1, max_size=30),
    st.integers(0, 100),
    st.floats(0.1, 10_000),
)
def test_it_comes_to_an_end(words: list[tuple[float, float, str]], max_retries: int, deadline_s: float) -> None:
    properties, now_s = Properties(correlation_id="c", reply_to="amq.gen-me"), 0.0
    for number, (after_s, draw, why) in enumerate(words):
        clock = Clock(now_s, START_UNIX_S + now_s)
        request = item(properties, deadline_s)
        answer = retry.answer(request, Raised("failed", why, after_s), source(max_retries), clock, draw)
        if answer.later is None:
            assert (answer.outcome is Outcome.DEAD) == (number >= max_retries)
            assert answer.code in ("dead", "expired")
            return
        assert (answer.outcome, answer.later.retries) == (Outcome.RETRIED, number + 1)
        letter = retry.copy_of(request.delivery, answer.error, answer.later)
        headers, delay_s = letter.properties.headers or {}, answer.later.rungs_ms[0] / 1000
        assert after_s <= delay_s <= max(0.375, after_s * 2.25 + 0.005)
        assert now_s + delay_s < deadline_s
        assert abs(headers["deadline"] / 1000 - START_UNIX_S - deadline_s) < 0.01
        assert (headers["retries"], len(headers["retry-history"])) == (number + 1, min(number + 1, 20))
        assert letter.properties.correlation_id == "c"
        properties, now_s = letter.properties, now_s + delay_s


@given(st.floats(0.001, 600), st.integers())
def test_what_is_put_off_together_does_not_come_back_together(after_s: float, seed: int) -> None:
    random, taken = Random(seed), Counter[int]()
    for _ in range(200):
        request = item(Properties(), 10_000.0)
        answer = retry.answer(request, Raised("failed", "", after_s), source(1), Clock(0.0, 0.0), random.random())
        assert answer.later is not None
        taken[answer.later.rungs_ms[0]] += 1
    assert len(taken) == len(at_least(after_s)[:2])
    assert min(taken.values()) > 50
