from __future__ import annotations

from modelmq.gateway.differences import Difference, difference
from modelmq.metadata import Signature, TensorSpec

X = TensorSpec("x", "FP32", (-1, 4))
N = TensorSpec("n", "INT64", (-1,), optional=True)
Y = TensorSpec("y", "FP32", (-1,))


def signature(inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...] = (Y,)) -> Signature:
    return Signature("python", inputs, outputs, batched=True)


def test_the_same_tensors_in_any_order_are_no_difference() -> None:
    assert difference(signature((X, N)), signature((N, X))) is None


def test_the_first_difference_is_told_with_both_sides() -> None:
    other = TensorSpec("x", "FP64", (-1, 5))
    assert difference(signature((X,)), signature((other,))) == Difference("input x", "FP32 [-1, 4]", "FP64 [-1, 5]")


def test_a_tensor_that_only_one_has() -> None:
    assert difference(signature((X,)), signature((X, N))) == Difference("input n", "absent", "INT64 [-1] (optional)")
    assert difference(signature((X, N)), signature((X,))) == Difference("input n", "INT64 [-1] (optional)", "absent")


def test_outputs_count_too() -> None:
    assert difference(signature((X,)), signature((X,), ())) == Difference("output y", "FP32 [-1]", "absent")
