from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from modelmq.errors import ModelFailed
from modelmq.metadata import Signature, TensorSpec
from modelmq.runtimes import checked_outputs

INFERRED = Signature("python", (), (), batched=True)
ALONE = Signature("python", (), (), batched=False)


def declared(datatype: str, shape: tuple[int, ...] = (-1,), *, optional: bool = False) -> Signature:
    return Signature("python", (), (TensorSpec("y", datatype, shape, optional=optional),), batched=shape[:1] == (-1,))


def check(value: object, signature: Signature = INFERRED, rows: int = 2) -> np.ndarray[Any, Any]:
    return checked_outputs({"y": value}, signature, rows, "m")["y"]


def refusal(outputs: object, signature: Signature = INFERRED, rows: int = 2) -> str:
    with pytest.raises(ModelFailed) as caught:
        checked_outputs(outputs, signature, rows, "m")
    return caught.value.message


class Arraylike:
    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray[Any, Any]:
        return np.array([1, 2])


@pytest.mark.parametrize("value", [np.array([1, 2]), [1, 2], (1, 2), Arraylike(), [np.int64(1), np.int64(2)]])
def test_what_numpy_understands_becomes_an_array(value: object) -> None:
    assert check(value).tolist() == [1, 2]


@pytest.mark.parametrize("value", [5, 2.5, True, np.float32(1), "text"])
def test_single_values_are_tensors_of_a_model_that_is_not_batched(value: object) -> None:
    assert check(value, ALONE).shape == ()


@pytest.mark.parametrize(
    ("outputs", "sentence"),
    [
        (None, "predict of model m returned nothing; expected a dict of arrays by output name."),
        ([1, 2], "predict of model m returned a list; expected a dict"),
        ({"y": None}, 'Output "y" of model m is nothing; expected a numpy array.'),
        ({"y": {1, 2}}, 'Output "y" of model m is a set; expected a numpy array.'),
        ({"y": {"a": 1}}, 'Output "y" of model m is a dict; expected a numpy array.'),
        ({"y": [[1], [1, 2]]}, 'Output "y" of model m cannot be made an array'),
        ({"y": np.array([1j, 2j])}, 'Output "y" of model m cannot be sent: The protocol has no datatype for numpy\'s'),
        ({"y": np.zeros(3)}, 'Output "y" of model m has shape [3] for 2 rows sent; expected 2 rows.'),
        ({"y": np.zeros((1, 2))}, "has shape [1, 2] for 2 rows sent; expected 2 rows."),
        ({"y": 5}, "has shape [] for 2 rows sent; expected 2 rows."),
        ({"y": "ab"}, "has shape [] for 2 rows sent; expected 2 rows."),
    ],
)
def test_what_cannot_be_answered_with_is_a_failure_that_names_it(outputs: object, sentence: str) -> None:
    assert sentence in refusal(outputs)


def test_declared_outputs_come_in_declared_order() -> None:
    specs = (TensorSpec("a", "FP64", (-1,)), TensorSpec("b", "FP64", (-1,)))
    signature = Signature("python", (), specs, batched=True)
    assert list(checked_outputs({"b": np.zeros(1), "a": np.ones(1)}, signature, 1)) == ["a", "b"]


def test_declared_outputs_are_all_there_and_no_others() -> None:
    assert refusal({}, declared("FP32")) == 'Output "y" of model m is missing in what predict returned.'
    assert checked_outputs({}, declared("FP32", optional=True), 2) == {}
    undeclared = {"y": np.zeros(2, np.float32), "z": np.zeros(2)}
    assert refusal(undeclared, declared("FP32")) == 'Output "z" of model m is not declared; declared are y.'


@pytest.mark.parametrize(
    ("value", "datatype"),
    [
        (np.array([0.1, 2]), "FP32"),
        (np.array([1, 2]), "FP32"),
        (np.array([1, 2]), "INT8"),
        (np.array([1, 2], np.uint8), "INT64"),
        (np.array([True, False]), "INT64"),
        (np.array([1, 2], ">i4"), "INT32"),
        (["a", "b"], "BYTES"),
        (np.array([b"a", b"b"]), "BYTES"),
        (np.array(["a", b"b"], object), "BYTES"),
    ],
)
def test_declared_types_are_converted_to_where_nothing_is_lost(value: object, datatype: str) -> None:
    array = check(value, declared(datatype))
    assert array.dtype == np.dtype(
        {"BYTES": object, "FP32": "f4", "INT8": "i1", "INT32": "i4", "INT64": "i8"}[datatype]
    )
    np.testing.assert_allclose(array, value) if datatype != "BYTES" else None


@pytest.mark.parametrize(
    ("value", "datatype"),
    [
        (np.array([0.5, 2]), "INT64"),
        (np.array([1.0, 2]), "INT64"),
        (np.array([300, 2]), "INT8"),
        (np.array([1, 0]), "BOOL"),
        (np.array([1, 2]), "BYTES"),
        (np.array(["1", "2"]), "FP64"),
        (np.array([1, 2], object), "FP64"),
    ],
)
def test_declared_types_are_never_reached_by_losing_values(value: object, datatype: str) -> None:
    assert f"does not convert to the declared {datatype} without loss." in refusal({"y": value}, declared(datatype))


def test_a_number_beyond_fp32_becomes_infinite_without_a_warning() -> None:
    assert np.isinf(check(np.array([1e300, 1]), declared("FP32"))[0])


def test_declared_shapes_are_kept() -> None:
    signature = declared("FP64", (-1, 3))
    assert check(np.zeros((2, 3)), signature).shape == (2, 3)
    assert refusal({"y": np.zeros((2, 4))}, signature) == 'Output "y" of model m has shape [2, 4]; declared is [-1, 3].'
    assert "has shape [2]; declared is [-1, 3]" in refusal({"y": np.zeros(2)}, signature)
    assert check(np.zeros((1, 3)), declared("FP64", (1, 3)), rows=1).shape == (1, 3)
