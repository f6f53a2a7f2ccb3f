from __future__ import annotations

import json
from typing import Any

import msgspec
import numpy as np
import pytest

from modelmq.errors import ModelFailed
from modelmq.protocol import json_writing
from modelmq.protocol.json_writing import write_tensor

RNG = np.random.default_rng(7)


def written(array: np.ndarray[Any, Any]) -> str:
    return msgspec.json.encode(write_tensor("y", array, "Output", ModelFailed).data).decode()


def numbers_of_32_bits() -> np.ndarray[Any, Any]:
    patterns = RNG.integers(0, 2**32, 20_000, dtype=np.uint32).view(np.float32)
    return np.concatenate(
        [
            patterns[np.isfinite(patterns)],
            RNG.random(5000, np.float32),
            RNG.standard_normal(5000).astype(np.float32) * np.float32(1000),
            np.float32(10.0) ** np.arange(-45, 39, dtype=np.float32),
            np.nextafter(np.float32(10.0) ** np.arange(-37, 38, dtype=np.float32), np.float32(0)),
            np.array(
                [0, -0.0, 0.1, 1 / 3, 16777216, 16777217, 1e-45, -1e-45, 3.4028235e38, 1.17549435e-38], np.float32
            ),
        ]
    )


@pytest.mark.parametrize("few", [0, 10**9])
def test_32_bits_are_written_with_the_fewest_digits_that_read_back(few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_writing, "FEW", few)
    numbers = numbers_of_32_bits()
    texts = written(numbers)[1:-1].split(",")
    back = np.array([np.float32(float(text)) for text in texts])
    np.testing.assert_array_equal(back.view(np.uint32), numbers.view(np.uint32))
    for text, number in zip(texts, numbers, strict=True):
        assert significant_digits(text) <= significant_digits(str(number)), number


def significant_digits(text: str) -> int:
    return len(text.lower().partition("e")[0].replace(".", "").replace("-", "").strip("0"))


@pytest.mark.parametrize(
    ("array", "text"),
    [
        (np.array([0.1, 1, -2.5e-7], np.float32), "[0.1,1.0,-2.5e-7]"),
        (np.array([0.1, 1e300]), "[0.1,1e300]"),
        (np.array([], np.float32), "[]"),
        (np.float32(0.5), "[0.5]"),
        (np.array([True, False]), "[true,false]"),
        (np.array([2**64 - 1], np.uint64), "[18446744073709551615]"),
        (np.array([[1, 2], [3, 4]], np.int8).T, "[1,3,2,4]"),
        (np.array([0.5, 2], ">f4"), "[0.5,2.0]"),
        (np.array([1, 258], ">i4"), "[1,258]"),
        (np.array(["ä", "b"]), '["ä","b"]'),
        (np.array([b"a"]), '["a"]'),
        (np.array([[b"a"], ["b"]], object), '["a","b"]'),
    ],
)
def test_data_is_flat_in_row_major_order(array: np.ndarray[Any, Any], text: str) -> None:
    assert written(np.asarray(array)) == text


def test_a_sum_that_overflows_is_no_reason_to_refuse() -> None:
    largest = np.finfo(np.float64).max
    assert json.loads(written(np.array([largest, largest]))) == [largest, largest]
