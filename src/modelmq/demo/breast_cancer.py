"""Breast tumours told benign from malignant by a scikit-learn pipeline, saved with skops."""

from __future__ import annotations

from pathlib import Path

import skops.io
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from modelmq.demo.samples import SAMPLE_FILE, TRUTH
from modelmq.protocol.json_codec import encode_request


def build(folder: Path) -> None:
    """Trains on three quarters of the data; the question is a tumour from the last quarter.

    Input `x` FP64 [-1, 30]; outputs `predict` BYTES [-1] and `predict_proba` FP64 [-1, 2].
    """
    data = load_breast_cancer()
    names = data.target_names[data.target].astype(str)
    training, unseen, training_names, unseen_names = train_test_split(
        data.data, names, test_size=0.25, random_state=0, stratify=names
    )
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)).fit(training, training_names)
    (folder / "1").mkdir(parents=True)
    skops.io.dump(classifier, folder / "1" / "model.skops")
    question = encode_request({"x": unseen[:1]}, parameters={TRUTH: str(unseen_names[0])})
    (folder / SAMPLE_FILE).write_bytes(question)
