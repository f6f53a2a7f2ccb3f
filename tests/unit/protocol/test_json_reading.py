from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from modelmq.errors import InvalidRequest
from modelmq.protocol import json_reading
from modelmq.protocol.json_reading import read_tensor
from modelmq.protocol.tensors import WireTensor

INTEGERS = [f"{sign}INT{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64)]


def read(datatype: str, shape: list[int], data: str | bytes) -> np.ndarray[Any, Any]:
    text = data.encode() if isinstance(data, str) else data
    return read_tensor(WireTensor("x", shape, datatype, msgspec.Raw(text)))


def refusal(datatype: str, shape: list[int], data: str | bytes) -> str:
    with pytest.raises(InvalidRequest) as caught:
        read(datatype, shape, data)
    return caught.value.message


@pytest.mark.parametrize("datatype", INTEGERS)
def test_integers_are_taken_to_their_ends_and_not_beyond(datatype: str) -> None:
    ends = np.iinfo(datatype.lower())
    assert read(datatype, [2], f"[{ends.min},{ends.max}]").tolist() == [ends.min, ends.max]
    expected = f"expected whole numbers from {ends.min} to {ends.max}."
    assert expected in refusal(datatype, [1], f"[{ends.max + 1}]")
    assert expected in refusal(datatype, [1], f"[{ends.min - 1}]")
    assert expected in refusal(datatype, [1], f"[1{'0' * 5000}]")


@pytest.mark.parametrize("datatype", INTEGERS)
@pytest.mark.parametrize("element", ["1.0", "1e2", '"1"', "null", "true", "[1]", "{}"])
def test_only_whole_numbers_are_integers(datatype: str, element: str) -> None:
    assert "at position 0; expected whole numbers from" in refusal(datatype, [1], f"[{element}]")


@pytest.mark.parametrize("datatype", ["FP32", "FP64"])
def test_whole_numbers_are_fractions_too(datatype: str) -> None:
    assert read(datatype, [3], "[1,-2,3e2]").tolist() == [1.0, -2.0, 300.0]


def test_fp32_is_taken_to_its_end_and_not_beyond() -> None:
    largest = float(np.finfo(np.float32).max)
    assert read("FP32", [2], "[3.4028235e38,-3.4028235e38]").tolist() == [largest, -largest]
    assert "out of range" in refusal("FP32", [1], "[3.4028236e38]")
    assert "out of range" in refusal("FP64", [1], "[1e400]")


def test_booleans_are_true_and_false_only() -> None:
    assert read("BOOL", [2], "[true,false]").tolist() == [True, False]
    assert "has a number at position 1; expected true or false." in refusal("BOOL", [2], "[true,1]")


def test_strings_are_bytes_in_utf8() -> None:
    array = read("BYTES", [2, 1], '["ä","\\u0000"]')
    assert array.dtype == object
    assert array.tolist() == [["ä".encode()], [b"\0"]]
    assert "has a number at position 0; expected strings." in refusal("BYTES", [1], "[1]")
    assert "not valid UTF-8" in refusal("BYTES", [1], b'["\xff"]')


@pytest.mark.parametrize(
    ("shape", "data"),
    [
        ([2, 3], "[[1,2,3],[4,5,6]]"),
        ([2, 3], "[ [1, 2, 3],\n\t[4, 5, 6] ]"),
        ([1, 2, 3], "[[[1,2,3],[4,5,6]]]"),
        ([2, 3, 1], "[[[1],[2],[3]],[[4],[5],[6]]]"),
    ],
)
@pytest.mark.parametrize("datatype", ["INT32", "FP32", "FP64"])
def test_nested_lists_are_read_like_flat_ones(datatype: str, shape: list[int], data: str) -> None:
    array = read(datatype, shape, data)
    assert array.shape == tuple(shape)
    assert array.ravel().tolist() == [1, 2, 3, 4, 5, 6]


def test_nested_strings_may_hold_brackets_and_commas() -> None:
    assert read("BYTES", [2, 2], '[["[","]"],[",","\\""]]').tolist() == [[b"[", b"]"], [b",", b'"']]


@pytest.mark.parametrize("datatype", ["INT32", "FP64", "BYTES"])
@pytest.mark.parametrize(("shape", "data"), [([0], "[]"), ([2, 0], "[[],[]]"), ([2, 0], "[]"), ([0, 2], "[]")])
def test_empty_tensors_are_read(datatype: str, shape: list[int], data: str) -> None:
    assert read(datatype, shape, data).shape == tuple(shape)


@pytest.mark.parametrize("datatype", ["INT32", "FP32", "BYTES"])
@pytest.mark.parametrize(
    ("shape", "data"),
    [
        ([2, 2], "[[1,2],[3]]"),
        ([2, 2], "[[1,2,3],[4]]"),
        ([2, 2], "[[1,2]]"),
        ([2, 2], "[[1],[2],[3],[4]]"),
        ([2, 2], "[1,[2,3],4]"),
        ([2, 2], "[[[1,2],[3,4]]]"),
        ([4], "[[1,2,3,4]]"),
        ([2, 2], "[[],[]]"),
        ([2**31 - 1, 0], "[[]]"),
        ([2**31 - 1, 2**31 - 1], "[[1]]"),
        ([], "1"),
        ([2], "[1,2,]"),
        ([2], "[1 2]"),
        ([1, 1], "[[" + "[" * 100_000),
    ],
)
def test_lists_unlike_the_shape_are_refused(datatype: str, shape: list[int], data: str) -> None:
    quoted = data
    if datatype == "BYTES":
        quoted = "".join(f'"{c}"' if c.isdigit() else c for c in data)
    assert refusal(datatype, shape, quoted).startswith('Input "x" has ')


def test_a_string_cannot_pass_for_nesting() -> None:
    assert "lists nested unlike" in refusal("INT32", [2, 1], '[[1],"["]')
    assert "has a string at position 1" in refusal("INT32", [2, 1], '[[1],"[]"]')
    assert refusal("INT32", [1, 2], '[[1,"2"]]').endswith("expected whole numbers from -2147483648 to 2147483647.")


def test_long_data_is_read_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_reading, "PIECE_BYTES", 16)
    numbers = list(range(1000))
    flat = "[" + ", ".join(map(str, numbers)) + "]"
    nested = "[" + ",".join(f"[{2 * n}, {2 * n + 1}]" for n in range(500)) + "]"
    assert read("INT32", [1000], flat).tolist() == numbers
    assert read("INT32", [500, 2], nested).ravel().tolist() == numbers
    assert "has 1000 values in its data; expected 1001" in refusal("INT32", [1001], flat)
    assert "has lists nested unlike" in refusal("INT32", [2, 500], nested)
    assert "has a string; expected" in refusal("INT32", [1000], flat.replace("999", '"9"'))
    assert "has null; expected" in refusal("INT32", [500, 2], nested.replace("999", "null"))
    assert "out of range; expected" in refusal("INT8", [1000], flat)
    assert "out of range" in refusal("INT64", [1000], flat.replace("999", "9" * 30))
    assert "has a" in refusal("INT32", [1], '["' + "a" * 100 + '"]')
    assert "has data that is not a list" in refusal("INT32", [1], '{"' + "a" * 100 + '":1}')
    assert "has data that is not a list" in refusal("INT32", [50], '"' + ",".join("1" * 50) + '"')
    assert "has data that is not a list" in refusal("FP64", [1], "1" * 50)


def test_pieces_may_end_exactly_where_the_text_does(monkeypatch: pytest.MonkeyPatch) -> None:
    for piece in range(1, 12):
        monkeypatch.setattr(json_reading, "PIECE_BYTES", piece)
        assert read("INT32", [6], "[1,2,3,4,5,16]").tolist() == [1, 2, 3, 4, 5, 16]
        assert read("INT32", [0], "[" + " " * 12 + "]").tolist() == []
        assert read("INT32", [1], "[" + " " * 12 + "7]").tolist() == [7]
