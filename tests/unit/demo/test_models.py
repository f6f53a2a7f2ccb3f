from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelmq.demo import MODELS, sample
from modelmq.demo.sentiment import SOURCE
from modelmq.metadata import TensorSpec
from modelmq.protocol.json_codec import decode_request
from modelmq.protocol.validation import rows_of
from modelmq.runtimes import Runtime, checked_outputs, open_model, scan

EXAMPLES = Path(__file__).parents[3] / "examples" / "models"


@contextmanager
def opened(models: Path, name: str) -> Iterator[Runtime]:
    catalog = scan(models)
    assert catalog.problems == ()
    runtime = open_model(next(source for source in catalog.models if source.name == name))
    yield runtime
    runtime.close()


def asked(models: Path, name: str) -> tuple[dict[str, np.ndarray[Any, Any]], object]:
    question = sample(models, name)
    assert question is not None
    with opened(models, name) as runtime:
        request = decode_request(question.body, runtime.signature, model=name)
        outputs = runtime.predict(request.inputs)
        return checked_outputs(outputs, runtime.signature, rows_of(request, runtime.signature)), question.truth


@pytest.mark.parametrize(
    ("name", "output"), [("digits", "label"), ("breast-cancer", "predict"), ("sentiment", "score")]
)
def test_the_demo_models_answer_their_question_truly(built: Path, name: str, output: str) -> None:
    outputs, truth = asked(built, name)
    assert outputs[output].tolist() == [truth]
    assert name in MODELS


def test_the_examples_answer_their_question_truly() -> None:
    outputs, truth = asked(EXAMPLES, "iris")
    assert outputs["species"].tolist() == [str(truth).encode()]


def test_the_single_service_names_lead_to_an_example() -> None:
    settings = {source.name: source.settings for source in scan(EXAMPLES).models}
    assert (settings["iris"].routing_key, settings["iris"].queue) == ("ml_service", "ml-service-queue")
    assert settings["sentiment"].queue is None


def test_the_model_file_shown_everywhere_is_the_one_of_the_demo_and_short() -> None:
    assert (EXAMPLES / "sentiment" / "1" / "model.py").read_text() == SOURCE
    assert len(SOURCE.splitlines()) <= 12
    assert SOURCE in (EXAMPLES.parents[1] / "docs" / "models.md").read_text()


def test_digits_takes_rows_of_64_pixels(built: Path) -> None:
    with opened(built, "digits") as runtime:
        assert runtime.signature.batched
        assert runtime.signature.inputs == (TensorSpec("x", "FP32", (-1, 64)),)
        assert runtime.signature.outputs == (
            TensorSpec("label", "INT64", (-1,)),
            TensorSpec("probabilities", "FP32", (-1, 10)),
        )


def test_the_trained_models_are_good(built: Path) -> None:
    from sklearn.datasets import load_breast_cancer, load_digits  # noqa: PLC0415 - heavy, only for the truth

    pixels, labels = load_digits(return_X_y=True)
    with opened(built, "digits") as runtime:
        answer = runtime.predict({"x": pixels.astype(np.float32)})
    assert (answer["label"] == labels).mean() > 0.97
    data = load_breast_cancer()
    with opened(built, "breast-cancer") as runtime:
        answer = runtime.predict({"x": data.data})
    assert (answer["predict"] == data.target_names[data.target]).mean() > 0.97


def test_sentiment_counts_words(built: Path) -> None:
    texts = np.array([b"Great, great film", b"I love it and hate it", b"so bad and sad", b""], object)
    with opened(built, "sentiment") as runtime:
        assert runtime.predict({"text": texts})["score"].tolist() == [1, 0, -2, 0]
