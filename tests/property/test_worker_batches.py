"""A batch as a whole: joined, run, re-run in halves and cut apart, each request gets what it would have got alone."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from modelmq.worker import wire
from modelmq.worker.halving import Halving
from modelmq.worker.joining import batch_key, join, split

ROWS = st.lists(st.integers(1, 7), min_size=1, max_size=12)


def model(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Row by row, several outputs, another rank and another type."""
    x, text = inputs["x"], inputs["text"]
    return {
        "sum": x.sum(axis=(1, 2)),
        "outer": x[:, :, :1] * np.arange(3),
        "text": np.array([value + b"!" for value in text], object),
    }


@given(ROWS, st.integers(0, 2**32 - 1))
def test_batched_answers_equal_single_ones(rows: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    requests = [
        {
            "x": rng.integers(-100, 100, (count, 2, 4)).astype(np.float32),
            "text": np.array([rng.bytes(3) for _ in range(count)], object),
        }
        for count in rows
    ]
    assert len({batch_key(request) for request in requests}) == 1
    batch = bytearray(b"".join(wire.encode(wire.Run(), join(requests))))
    outputs = bytearray(b"".join(wire.encode(wire.Ran(), model(wire.decode(batch)[1]))))
    answers = split(wire.decode(outputs)[1], rows, "m")
    for request, answer in zip(requests, answers, strict=True):
        alone = model(request)
        assert answer.keys() == alone.keys()
        for name, array in alone.items():
            assert answer[name].dtype == array.dtype
            assert np.array_equal(answer[name], array)


ARRAYS = hnp.arrays(
    st.sampled_from(["?", "u1", "i2", "<i4", ">i4", "i8", "u8", "f2", "f4", ">f8"]),
    hnp.array_shapes(min_dims=0, min_side=0),
)
TEXTS = hnp.arrays(
    np.object_, hnp.array_shapes(min_dims=0, min_side=0), elements=st.binary(max_size=5), fill=st.nothing()
)


@given(st.dictionaries(st.text(max_size=5), ARRAYS | TEXTS, max_size=4))
def test_frames_carry_every_tensor(tensors: dict[str, np.ndarray]) -> None:
    frame = bytearray(b"".join(wire.encode(wire.Run(), tensors)))
    assert wire.frame_size(frame[: wire.PREFIX.size]) == len(frame)
    message, decoded = wire.decode(frame)
    assert message == wire.Run()
    assert list(decoded) == list(tensors)
    for name, array in tensors.items():
        assert decoded[name].shape == array.shape
        assert decoded[name].flags.aligned
        assert decoded[name].flags.writeable
        assert decoded[name].tobytes() == array.astype(decoded[name].dtype).tobytes() or array.dtype == np.object_
        assert array.dtype != np.object_ or decoded[name].tolist() == array.tolist()


@given(st.integers(1, 200), st.data())
def test_halving_finds_every_culprit_and_spares_the_others(size: int, data: st.DataObject) -> None:
    raising = data.draw(st.sets(st.integers(0, size - 1), max_size=4))
    killing = data.draw(st.sets(st.integers(0, size - 1), max_size=2)) - raising
    max_attempts = data.draw(st.integers(1, 4))
    plan = Halving(range(size), max_attempts=max_attempts)
    succeeded: list[int] = []
    failed: list[int] = []
    dead: list[int] = []
    while current := plan.next():
        if killing & set(current):
            culprit = plan.died()
            if culprit is not None:
                assert plan.attempts == max_attempts
                dead.append(culprit)
        elif raising & set(current):
            culprit = plan.raised()
            failed += [] if culprit is None else [culprit]
        else:
            plan.succeeded()
            succeeded += current
    assert sorted(failed) == sorted(raising)
    assert sorted(dead) == sorted(killing)
    assert sorted(succeeded) == sorted(set(range(size)) - raising - killing)
    culprits = len(raising) + len(killing)
    deepest = math.ceil(math.log2(size)) if size > 1 else 0
    assert plan.runs <= 1 + 2 * deepest * culprits + len(killing) * (max_attempts - 1)


def test_one_bad_item_of_64_costs_at_most_13_extra_runs() -> None:
    for bad in range(64):
        plan = Halving(range(64), max_attempts=3)
        succeeded = 0
        while current := plan.next():
            if bad in current:
                plan.raised()
            else:
                plan.succeeded()
                succeeded += len(current)
        assert succeeded == 63
        assert plan.runs - 1 <= 13


@given(st.integers(1, 64), st.sets(st.integers(0, 63)), st.integers(0, 20))
def test_what_nobody_wants_is_not_run_again(size: int, unwanted: set[int], after: int) -> None:
    plan = Halving(range(size), max_attempts=3)
    ran_after: list[int] = []
    dropped: list[int] = []
    finished: list[int] = []
    while current := plan.next():
        if plan.runs > after + 1:
            ran_after += current
        if len(current) > 2:
            plan.raised()
        else:
            plan.succeeded()
            finished += current
        if plan.runs == after + 1:
            dropped = plan.keep(lambda item: item not in unwanted)
    assert not set(ran_after) & unwanted
    assert sorted(finished + dropped) == list(range(size))


def test_giving_up_returns_the_rest_in_order() -> None:
    plan = Halving(range(8), max_attempts=1)
    plan.next()
    plan.died()
    assert plan.next() == (0, 1, 2, 3)
    plan.died()
    assert plan.rest() == list(range(8))
    assert plan.next() == ()
