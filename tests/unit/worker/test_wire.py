from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from modelmq.errors import ModelFailed
from modelmq.metadata import Signature, TensorSpec
from modelmq.runtimes import ModelSettings
from modelmq.worker import wire


def frame_of(message: wire.Message, tensors: dict[str, np.ndarray] | None = None) -> bytearray:
    return bytearray(b"".join(wire.encode(message, tensors)))


def test_settings_and_signatures_survive() -> None:
    settings = ModelSettings(runtime="python", threads=4, inputs=(TensorSpec("x", "FP32", (-1, 4)),))
    message = wire.Open("m", "1", str(Path("models/m/1/model.py")), msgspec.to_builtins(settings))
    decoded, _ = wire.decode(frame_of(message))
    assert isinstance(decoded, wire.Open)
    assert msgspec.convert(decoded.settings, ModelSettings) == settings
    opened = wire.Opened(Signature("python", settings.inputs, (), batched=True), 42)
    assert wire.decode(frame_of(opened))[0] == opened


@pytest.mark.parametrize("dtype", ["c8", "M8[s]", "g", "V4"])
def test_types_the_protocol_has_not_are_refused(dtype: str) -> None:
    with pytest.raises(ModelFailed, match='Tensor "x" has the numpy type'):
        wire.encode(wire.Ran(), {"x": np.zeros(2, dtype)})


def test_objects_that_are_no_text_are_refused() -> None:
    with pytest.raises(ModelFailed, match="an element of type float"):
        wire.encode(wire.Ran(), {"x": np.array([b"a", 1.5], object)})


def test_large_tensors_are_not_copied() -> None:
    array = np.zeros(1000)
    data = wire.encode(wire.Run(), {"x": array})[1]
    assert np.shares_memory(np.frombuffer(data, np.uint8), array)
    frame = frame_of(wire.Run(), {"x": array})
    assert np.shares_memory(wire.decode(frame)[1]["x"], np.frombuffer(frame, np.uint8))


def test_a_giant_announcement_is_garbage() -> None:
    with pytest.raises(ModelFailed, match="was announced"):
        wire.frame_size(b"\xff" * wire.PREFIX.size)


@pytest.mark.parametrize("cut", [0, 5, 20, 40])
def test_a_broken_frame_is_one_error(cut: int) -> None:
    frame = frame_of(wire.Run(), {"x": np.zeros(4), "t": np.array([b"abc"], object)})
    with pytest.raises(ModelFailed, match="cannot be read"):
        wire.decode(frame[:cut])
