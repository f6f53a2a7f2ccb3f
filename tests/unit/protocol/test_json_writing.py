from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import msgspec
import numpy as np
import pytest

from modelmq.errors import ModelFailed
from modelmq.protocol.json_writing import PIECE, write_rows, write_tensor

RNG = np.random.default_rng(7)


def written(array: np.ndarray[Any, Any]) -> str:
    return msgspec.json.encode(write_tensor("y", array, "Output", ModelFailed).data).decode()


def in_rows(array: np.ndarray[Any, Any], *counts: int) -> list[str]:
    rows, start, texts = write_rows("y", array, "Output", ModelFailed), 0, []
    for count in counts:
        tensor = rows.rows(start, count)
        assert tensor.shape == (count, *array.shape[1:])
        texts.append(msgspec.json.encode(tensor.data).decode())
        start += count
    return texts


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


def test_32_bits_are_written_with_the_fewest_digits_that_read_back() -> None:
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
    assert written(np.asarray(array)).replace("e+", "e") == text  # orjson has written it either way


def test_a_sum_that_overflows_is_no_reason_to_refuse() -> None:
    largest = np.finfo(np.float64).max
    assert json.loads(written(np.array([largest, largest]))) == [largest, largest]


@pytest.mark.parametrize(
    "array",
    [
        np.arange(24, dtype=np.float32).reshape(4, 2, 3) / 7,
        np.arange(4),
        np.array([[1, 2], [3, 4], [5, 6], [7, 8]], np.int8).T.copy().T,
        np.array([0.5, 2, -1e-9, 3], ">f8"),
        np.array([True, False, True, True]),
        np.array(["a],[b", '"', "ä", ""], object),
        np.array([[b"a", b"b"]] * 4, object),
        np.zeros((4, 0), np.float32),
        np.zeros((4, 0), object),
        np.zeros((4, 2, 0, 3), np.int64),
    ],
)
def test_rows_are_written_as_if_each_request_had_been_alone(array: np.ndarray[Any, Any]) -> None:
    assert in_rows(array, 1, 2, 1) == [written(array[:1]), written(array[1:3]), written(array[3:])]


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.array([[1, np.nan]]), 'Output "y" has NaN or Infinity'),
        (np.array([[np.inf]], np.float32), 'Output "y" has NaN or Infinity'),
        (np.array([[1]], np.float16), 'Output "y" is FP16'),
        (np.array([[b"\xff"]], object), 'Output "y" has bytes that are not UTF-8'),
        (np.array([["\ud800"]], object), 'Output "y" has bytes that are not UTF-8'),
        (np.array([[1]], object), 'Output "y" has an element of type int where BYTES needs strings or bytes'),
        (np.array([[1j]]), 'Output "y" cannot be sent: '),
    ],
)
def test_what_json_does_not_carry_is_refused_in_rows_as_in_one_piece(array: np.ndarray[Any, Any], words: str) -> None:
    for write in (write_tensor, write_rows):
        with pytest.raises(ModelFailed, match=words):
            write("y", array, "Output", ModelFailed)


def test_of_no_rows_nothing_is_written() -> None:
    assert in_rows(np.zeros((0, 3), np.float32), 0) == ["[]"]
    assert write_rows("y", np.zeros((0, 3), np.float32), "Output", ModelFailed).texts == []


@pytest.mark.parametrize("size", [PIECE - 1, PIECE, PIECE + 1, 3 * PIECE, 3 * PIECE + 5])
def test_what_is_written_in_pieces_reads_as_one(size: int) -> None:
    array = np.arange(size, dtype=np.int64)
    assert json.loads(written(array)) == list(range(size))


def test_what_is_more_than_an_array_is_written_as_one() -> None:
    assert written(np.ma.masked_array([1.5, 2.5], [False, True])) == "[1.5,2.5]"


OUT_OF_MEMORY = """
import resource
import numpy as np
from modelmq.errors import ModelFailed
from modelmq.protocol.json_writing import write_tensor

numbers = np.random.default_rng(1).random(700_000)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + MORE, used + MORE))
try:
    write_tensor("y", numbers, "Output", ModelFailed)
except MemoryError:
    print("told")
"""


@pytest.mark.parametrize("more_mib", [6, 8, 12])
def test_too_little_memory_costs_the_request_and_not_the_process(more_mib: int) -> None:
    code = OUT_OF_MEMORY.replace("MORE", str(more_mib * 2**20))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "told\n", "")
