from __future__ import annotations

from pathlib import Path

import pytest

from modelmq.demo import Sample, sample


def put(models: Path, text: bytes) -> Path:
    (models / "m").mkdir()
    path = models / "m" / "sample.json"
    path.write_bytes(text)
    return path


def test_a_sample_is_a_request_body_with_its_truth(tmp_path: Path) -> None:
    body = b'{"inputs":[],"parameters":{"truth":"cat"}}'
    path = put(tmp_path, body + b"\n")
    assert sample(tmp_path, "m") == Sample("m", path, body, "cat")


def test_the_truth_may_be_unknown(tmp_path: Path) -> None:
    put(tmp_path, b'{"inputs":[]}')
    found = sample(tmp_path, "m")
    assert found is not None
    assert found.truth is None


@pytest.mark.parametrize("text", [b"", b"{}", b"garbage"])
def test_a_file_that_is_no_request_is_no_sample(tmp_path: Path, text: bytes) -> None:
    put(tmp_path, text)
    assert sample(tmp_path, "m") is None


def test_no_file_is_no_sample(tmp_path: Path) -> None:
    assert sample(tmp_path, "m") is None
