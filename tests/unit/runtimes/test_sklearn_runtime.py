from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from modelmq.errors import ModelLoadError
from modelmq.metadata import TensorSpec
from modelmq.runtimes import ModelSettings, ModelSource, Runtime, open_model

if TYPE_CHECKING:
    from sklearn.linear_model import LinearRegression, LogisticRegression
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import LinearSVC

ROWS = np.arange(12.0).reshape(6, 2)
LABELS = [0, 0, 0, 1, 1, 1]

Open = Callable[..., Runtime]


class Tripwire:
    """Unpickling it creates a file: proof that a pickle ran."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


def doubled(rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return rows * 2


def linear() -> LinearRegression:
    from sklearn.linear_model import LinearRegression  # noqa: PLC0415 - heavy, as all of scikit-learn

    return LinearRegression()


def logistic() -> LogisticRegression:
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415 - likewise

    return LogisticRegression()


def linear_svc() -> LinearSVC:
    from sklearn.svm import LinearSVC  # noqa: PLC0415 - likewise

    return LinearSVC()


def scaler() -> StandardScaler:
    from sklearn.preprocessing import StandardScaler  # noqa: PLC0415 - likewise

    return StandardScaler()


def piped(*steps: object) -> Pipeline:
    from sklearn.pipeline import make_pipeline  # noqa: PLC0415 - likewise

    return make_pipeline(*steps)


def text_classifier(texts: list[str], labels: list[int]) -> Pipeline:
    from sklearn.feature_extraction.text import CountVectorizer  # noqa: PLC0415 - likewise

    return piped(CountVectorizer(), logistic()).fit(texts, labels)


@pytest.fixture
def opened(tmp_path: Path) -> Open:
    import skops.io  # noqa: PLC0415 - heavy, and here before a test takes it away

    def dump_and_open(estimator: object, **settings: object) -> Runtime:
        path = tmp_path / "model.skops"
        skops.io.dump(estimator, path)
        return open_model(ModelSource("m", "1", path, ModelSettings(runtime="sklearn", **settings)))

    return dump_and_open


def test_a_classifier_answers_with_labels_and_probabilities(opened: Open) -> None:
    runtime = opened(piped(scaler(), logistic()).fit(ROWS, LABELS))
    assert runtime.signature.inputs == (TensorSpec("x", "FP64", (-1, 2)),)
    assert runtime.signature.outputs == (
        TensorSpec("predict", "INT64", (-1,)),
        TensorSpec("predict_proba", "FP64", (-1, 2)),
    )
    assert runtime.predict({"x": ROWS})["predict"].tolist() == LABELS


def test_labels_may_be_text(opened: Open) -> None:
    runtime = opened(logistic().fit(ROWS, ["low"] * 3 + ["high"] * 3))
    assert runtime.signature.outputs[0].datatype == "BYTES"
    assert runtime.predict({"x": ROWS})["predict"].tolist() == ["low"] * 3 + ["high"] * 3


@pytest.mark.parametrize(
    ("estimator", "spec"),
    [
        (linear_svc, TensorSpec("predict", "INT64", (-1,))),
        (linear, TensorSpec("predict", "FP64", (-1,))),
    ],
)
def test_what_has_no_probabilities_answers_without(
    opened: Open, estimator: Callable[[], Any], spec: TensorSpec
) -> None:
    assert opened(estimator().fit(ROWS, LABELS)).signature.outputs == (spec,)


def test_several_targets_are_columns(opened: Open) -> None:
    assert opened(linear().fit(ROWS, ROWS)).signature.outputs == (TensorSpec("predict", "FP64", (-1, 2)),)


def test_only_declared_outputs_are_computed(opened: Open) -> None:
    spec = TensorSpec("predict_proba", "FP32", (-1, 2))
    runtime = opened(logistic().fit(ROWS, LABELS), outputs=(spec,))
    assert runtime.signature.outputs == (spec,)
    assert list(runtime.predict({"x": ROWS})) == ["predict_proba"]


def test_text_goes_in_as_declared(opened: Open) -> None:
    texts = ["good day", "good film", "bad day", "bad film"]
    classifier = text_classifier(texts, [1, 1, 0, 0])
    with pytest.raises(
        ModelLoadError, match=r"does not know its number of features; declare its inputs in model\.toml"
    ):
        opened(classifier)
    runtime = opened(classifier, inputs=(TensorSpec("text", "BYTES", (-1,)),))
    answer = runtime.predict({"text": np.array([b"a good one", b"a bad one"], object)})
    assert answer["predict"].tolist() == [1, 0]


def test_text_that_zeros_do_not_please_has_undeclared_outputs(opened: Open) -> None:
    classifier = text_classifier(["a1 b1", "b1 c1"], [0, 1])
    runtime = opened(classifier, inputs=(TensorSpec("number", "FP64", (-1,)),))
    assert runtime.signature.outputs == ()
    assert runtime.signature.batched


def test_several_inputs_are_joined_as_columns(opened: Open) -> None:
    specs = (TensorSpec("width", "FP32", (-1,)), TensorSpec("height", "FP32", (-1, 1)))
    runtime = opened(linear().fit([[0, 0], [1, 0], [0, 1]], [0, 1, -1]), inputs=specs)
    answer = runtime.predict({"height": np.array([[1.0], [5.0]]), "width": np.array([3.0, 5.0])})
    np.testing.assert_allclose(answer["predict"], [2.0, 0.0], atol=1e-9)


def test_types_unknown_to_skops_load_only_when_trusted(opened: Open) -> None:
    from sklearn.preprocessing import FunctionTransformer  # noqa: PLC0415 - likewise

    pipeline = piped(FunctionTransformer(doubled), linear()).fit(ROWS, LABELS)
    with pytest.raises(ModelLoadError) as caught:
        opened(pipeline)
    assert "doubled" in caught.value.message
    assert "set trust = true in model.toml if the file is your own." in caught.value.message
    assert len(opened(pipeline, trust=True).predict({"x": ROWS})["predict"]) == 6


@pytest.mark.parametrize("name", ["model.pkl", "model.joblib"])
def test_a_pickle_is_not_read_unless_trusted(tmp_path: Path, name: str) -> None:
    proof = tmp_path / "ran"
    path = tmp_path / name
    path.write_bytes(pickle.dumps(Tripwire(proof)))
    with pytest.raises(ModelLoadError, match="is a pickle, which can run any code while it is read"):
        open_model(ModelSource("m", "1", path, ModelSettings(runtime="sklearn")))
    assert not proof.exists()
    with pytest.raises(ModelLoadError, match="holds a NoneType, which has no predict method"):
        open_model(ModelSource("m", "1", path, ModelSettings(runtime="sklearn", trust=True)))
    assert proof.exists()


def test_what_cannot_predict_is_refused(opened: Open) -> None:
    with pytest.raises(ModelLoadError, match="holds a StandardScaler, which has no predict method"):
        opened(scaler().fit(ROWS))


def test_an_output_that_is_not_there_cannot_be_declared(opened: Open) -> None:
    with pytest.raises(ModelLoadError, match=r'has no output "score" that model\.toml declares; it has predict'):
        opened(linear().fit(ROWS, LABELS), outputs=(TensorSpec("score", "FP64", (-1,)),))


def test_a_missing_framework_is_named_with_its_remedy(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "skops.io", None)
    with pytest.raises(ModelLoadError, match=r"needs the Python package skops; install modelmq\[sklearn\]"):
        opened(linear().fit(ROWS, LABELS))
