"""A batch as a whole: joined, run, re-run in halves and cut apart, each request gets what it would have got alone."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from modelmq.protocol.datatypes import dtype_of
from modelmq.protocol.json_codec import decode_response
from modelmq.runtimes import ModelSettings, ModelSource, Runtime, checked_outputs, open_model, scan
from modelmq.worker import answers, wire
from modelmq.worker.halving import Halving
from modelmq.worker.item import WorkItem
from modelmq.worker.joining import batch_key, join, split
from modelmq.worker.outcome import Answer

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

SOURCE = ModelSource("m", "1", Path("models/m/1/model.py"), ModelSettings())


class Opened(NamedTuple):
    source: ModelSource
    runtime: Runtime


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


def write_onnx(fitted: LogisticRegression, path: Path) -> None:
    from skl2onnx import to_onnx  # noqa: PLC0415 - heavy, only for this model
    from skl2onnx.common.data_types import FloatTensorType  # noqa: PLC0415 - likewise

    kind, options = [("x", FloatTensorType([None, 4]))], {type(fitted): {"zipmap": False}}
    exported = to_onnx(fitted, initial_types=kind, options=options, target_opset=17)
    path.write_bytes(exported.SerializeToString())


def write_skops(fitted: LogisticRegression, path: Path) -> None:
    import skops.io  # noqa: PLC0415 - heavy, only for this model

    skops.io.dump(fitted, path)


@pytest.fixture(scope="module", params=["onnx", "sklearn"])
def opened(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    """A real model of each framework, of several outputs: classes by name and their probabilities."""
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415 - heavy, and most tests here need no model

    rows = np.random.default_rng(5).standard_normal((60, 4)).astype(np.float32)
    names = np.where(rows[:, 0] > rows[:, 1], "left", "right")
    fitted = LogisticRegression().fit(rows, names)
    folder = tmp_path_factory.mktemp(request.param) / "sides" / "1"
    folder.mkdir(parents=True)
    if request.param == "onnx":
        write_onnx(fitted, folder / "model.onnx")
    else:
        write_skops(fitted, folder / "model.skops")
    (source,) = scan(folder.parent.parent).models
    runtime = open_model(source)
    yield Opened(source, runtime)
    runtime.close()


@settings(max_examples=40)
@given(rows=ROWS, seed=st.integers(0, 2**32 - 1))
def test_batched_replies_of_real_models_equal_single_ones(opened: Opened, rows: list[int], seed: int) -> None:
    signature = opened.runtime.signature
    (spec,) = signature.inputs
    rng = np.random.default_rng(seed)
    items = [request(rng.standard_normal((count, 4)).astype(dtype_of(spec.datatype)), f"{count}") for count in rows]

    def computed(asked: list[WorkItem]) -> dict[str, np.ndarray]:
        """Through the frames, as the model's process computes it."""
        frame = bytearray(b"".join(wire.encode(wire.Run(), join([item.inputs for item in asked]))))
        outputs = checked_outputs(opened.runtime.predict(wire.decode(frame)[1]), signature, sum(i.rows for i in asked))
        return wire.decode(bytearray(b"".join(wire.encode(wire.Ran(), outputs))))[1]

    together = answers.successes(items, computed(items), opened.source, 10**6)
    for item, answer in zip(items, together, strict=True):
        alone = decode_response(answers.success(item, computed([item]), opened.source, 10**6).body)
        response = decode_response(answer.body)
        assert (response.id, response.model_name, response.model_version) == (item.request_id, "sides", "1")
        assert list(response.outputs) == list(alone.outputs) == [spec.name for spec in signature.outputs]
        for name, array in alone.outputs.items():
            assert response.outputs[name].shape == array.shape
            if array.dtype.kind == "f":  # matrix products of other sizes may round the last bit another way
                np.testing.assert_allclose(response.outputs[name], array, rtol=1e-5, atol=1e-7)
            else:
                assert response.outputs[name].tolist() == array.tolist()


VALUES = hnp.arrays(
    st.sampled_from([np.float32, np.float64, np.int8, np.uint64, np.bool_]), st.tuples(st.just(12), st.integers(0, 5))
)


@given(st.dictionaries(st.sampled_from("abc"), VALUES, max_size=3), st.booleans(), st.data())
def test_replies_cut_from_a_batch_are_those_written_one_by_one(
    outputs: dict[str, np.ndarray], whole: bool, data: st.DataObject
) -> None:
    """Bit by bit, also where a request's own rows, or a wish for an unknown output, cannot be a reply."""
    wishes = data.draw(st.lists(st.lists(st.sampled_from("abcd"), max_size=2), min_size=4, max_size=4))
    sizes = data.draw(st.permutations([1, 2, 4, 5]))
    items = [request(np.zeros(n), None, tuple(wish)) for n, wish in zip(sizes, wishes, strict=True)]
    limit = data.draw(st.integers(60, 200))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(answers, "WRITTEN_AT_ONCE", 10**6 if whole else -1)
        together = answers.successes(items, outputs, SOURCE, limit)
    parts = split(outputs, sizes, "m")
    alone = [answers.success(item, part, SOURCE, limit) for item, part in zip(items, parts, strict=True)]
    assert list(map(said, together)) == list(map(said, alone))


def said(answer: Answer) -> tuple[str, str, bytes]:
    """Of a reply that is too large, not how much: what is written alone is not written out to learn that."""
    too_large = answer.code == "failed" and answer.error.startswith("The reply of model m has")
    return answer.outcome, answer.code, b"too large" if too_large else answer.body


def request(x: np.ndarray, request_id: str | None, outputs: tuple[str, ...] = ()) -> WorkItem:
    return WorkItem(
        origin=None,  # type: ignore[arg-type] - nothing is settled here
        delivery=None,  # type: ignore[arg-type]
        lane="interactive",
        reply_to="",
        request_id=request_id,
        inputs={"x": x},
        outputs=outputs,
        rows=len(x),
        key=None,
        received_s=0.0,
        deadline_s=1.0,
    )


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
