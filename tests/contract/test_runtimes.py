"""The law every runtime keeps, over one model per runtime and per form of its file."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from modelmq.errors import ModelLoadError
from modelmq.metadata import DATATYPES
from modelmq.runtimes import ModelSource, Runtime, checked_outputs, open_model, scan, warm_up_inputs

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

ROWS = np.random.default_rng(3).standard_normal((40, 4))
LABELS = (ROWS[:, 0] > ROWS[:, 1]).astype(np.int64)

PYTHON = """
import numpy as np

class Sums:
    inputs = {"x": ("FP64", [-1, 4])}
    outputs = {"sum": ("FP64", [-1]), "words": ("BYTES", [-1])}

    def load(self, folder):
        self.offset = float((folder / "offset.txt").read_text())

    def predict(self, batch):
        sums = batch["x"].sum(axis=1) + self.offset
        return {"sum": sums, "words": [f"{value:.3f}" for value in sums]}
"""


def fitted() -> LogisticRegression:
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415 - heavy, only to write the models

    return LogisticRegression().fit(ROWS, LABELS)


def write_onnx(version: Path) -> None:
    from skl2onnx import to_onnx  # noqa: PLC0415 - heavy, only for ONNX models
    from skl2onnx.common.data_types import FloatTensorType  # noqa: PLC0415 - likewise

    model = fitted()
    options = {type(model): {"zipmap": False}}
    exported = to_onnx(model, initial_types=[("x", FloatTensorType([None, 4]))], options=options, target_opset=17)
    (version / "model.onnx").write_bytes(exported.SerializeToString())


def write_skops(version: Path) -> None:
    import skops.io  # noqa: PLC0415 - heavy, only for skops files

    skops.io.dump(fitted(), version / "model.skops")


def write_joblib(version: Path) -> None:
    import joblib  # noqa: PLC0415 - heavy, only for its pickles

    joblib.dump(fitted(), version / "model.joblib")
    (version / "model.toml").write_text("trust = true\n")


def write_pickle(version: Path) -> None:
    (version / "model.pkl").write_bytes(pickle.dumps(fitted()))
    (version / "model.toml").write_text("trust = true\n")


def write_python(version: Path) -> None:
    (version / "offset.txt").write_text("1.5")
    (version / "model.py").write_text(PYTHON)


WRITERS: list[Callable[[Path], None]] = [write_onnx, write_skops, write_joblib, write_pickle, write_python]


@pytest.fixture(params=WRITERS, ids=lambda writer: writer.__name__.removeprefix("write_"))
def source(request: pytest.FixtureRequest, tmp_path: Path) -> ModelSource:
    version = tmp_path / "sample" / "1"
    version.mkdir(parents=True)
    request.param(version)
    catalog = scan(tmp_path)
    assert catalog.problems == ()
    return catalog.models[0]


@pytest.fixture
def runtime(source: ModelSource) -> Iterator[Runtime]:
    opened = open_model(source)
    yield opened
    opened.close()


def inputs(runtime: Runtime, rows: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
    datatype = {"FP32": np.float32, "FP64": np.float64}[runtime.signature.inputs[0].datatype]
    return {"x": rows.astype(datatype)}


def predict(runtime: Runtime, rows: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
    return checked_outputs(runtime.predict(inputs(runtime, rows)), runtime.signature, len(rows))


def test_the_signature_tells_names_types_and_shapes(runtime: Runtime) -> None:
    signature = runtime.signature
    assert signature.batched
    assert signature.platform
    assert [(spec.name, spec.shape) for spec in signature.inputs] == [("x", (-1, 4))]
    assert signature.outputs
    assert all(spec.datatype in DATATYPES and spec.shape[0] == -1 for spec in signature.outputs)
    assert runtime.signature == signature


def test_rows_computed_together_are_as_if_computed_alone(runtime: Runtime) -> None:
    together = predict(runtime, ROWS)
    for index in range(len(ROWS)):
        alone = predict(runtime, ROWS[index : index + 1])
        for name, array in together.items():
            if array.dtype.kind == "f":
                np.testing.assert_allclose(alone[name], array[index : index + 1], rtol=1e-4, atol=1e-6)
            else:
                np.testing.assert_array_equal(alone[name], array[index : index + 1])


def test_outputs_are_as_declared(runtime: Runtime) -> None:
    outputs = predict(runtime, ROWS)
    assert [spec.name for spec in runtime.signature.outputs] == list(outputs)


@pytest.mark.parametrize("rows", [1, 5])
def test_it_can_be_warmed_up(runtime: Runtime, rows: int) -> None:
    zeros = warm_up_inputs(runtime.signature, rows)
    assert zeros is not None
    checked_outputs(runtime.predict(zeros), runtime.signature, rows)


def test_inputs_may_be_read_only(runtime: Runtime) -> None:
    batch = inputs(runtime, ROWS)
    batch["x"].flags.writeable = False
    assert runtime.predict(batch)


def test_it_computes_on_after_a_batch_that_raised(runtime: Runtime) -> None:
    with pytest.raises(Exception, match=r"."):
        runtime.predict({"x": np.array([["a"]], object)})
    assert predict(runtime, ROWS)


def test_closing_twice_is_closing_once(source: ModelSource) -> None:
    opened = open_model(source)
    opened.close()
    opened.close()


def test_opening_again_gives_the_same(source: ModelSource) -> None:
    first = open_model(source)
    answers = predict(first, ROWS)
    first.close()
    second = open_model(source)
    for name, array in predict(second, ROWS).items():
        np.testing.assert_array_equal(array, answers[name])
    second.close()


@pytest.mark.parametrize("content", [b"", b"\x00garbage\xff" * 40, b"import nothing_that_exists\n"])
def test_a_bad_file_is_one_typed_error_that_names_it(source: ModelSource, content: bytes) -> None:
    source.path.write_bytes(content)
    with pytest.raises(ModelLoadError) as caught:
        open_model(source)
    assert str(source.path) in caught.value.message
    assert caught.value.message.endswith(".")
    assert "\n" not in caught.value.message


def test_a_missing_file_is_one_typed_error_that_names_it(source: ModelSource) -> None:
    source.path.unlink()
    with pytest.raises(ModelLoadError) as caught:
        open_model(source)
    assert str(source.path) in caught.value.message
