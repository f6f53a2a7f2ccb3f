from __future__ import annotations

import numpy as np
import pytest

from modelmq.errors import ModelFailed
from modelmq.worker.joining import batch_key, join, select, split


def x(*shape: int, dtype: str = "f4") -> dict[str, np.ndarray]:
    return {"x": np.zeros(shape, dtype)}


def test_only_equal_names_types_and_trailing_shapes_join() -> None:
    assert batch_key(x(1, 4)) == batch_key(x(3, 4))
    others = [x(1, 5), x(1, 4, 1), x(1, 4, dtype="f8"), {"y": np.zeros((1, 4), "f4")}, {**x(1, 4), "y": np.zeros(1)}]
    assert len({batch_key(each) for each in [x(1, 4), *others]}) == 1 + len(others)


def test_the_order_of_inputs_does_not_matter() -> None:
    a, b = np.zeros((1, 2)), np.ones(1)
    assert batch_key({"a": a, "b": b}) == batch_key({"b": b, "a": a})
    joined = join([{"a": a, "b": b}, {"b": b, "a": a}])
    assert joined["b"].tolist() == [1, 1]


@pytest.mark.parametrize("array", [np.zeros(3), np.zeros((5, 1)), np.array(4.0)])
def test_an_output_with_other_rows_is_never_cut(array: np.ndarray) -> None:
    with pytest.raises(ModelFailed, match=r'Output "y" of model m .* 4 were sent'):
        split({"y": array}, [1, 3], "m")


def test_requested_outputs_come_in_the_order_asked_for() -> None:
    outputs = {"a": np.zeros(1), "b": np.ones(1)}
    assert list(select(outputs, (), "m")) == ["a", "b"]
    assert list(select(outputs, ("b", "a"), "m")) == ["b", "a"]
    with pytest.raises(ModelFailed, match='gave no output "c"; it gave a, b'):
        select(outputs, ("c",), "m")
