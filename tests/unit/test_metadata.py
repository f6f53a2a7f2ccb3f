from __future__ import annotations

import msgspec
import pytest

from modelmq.metadata import DATATYPES, MODEL_NAME, VERSION, BatchPolicy, ModelMetadata, Signature, TensorSpec


@pytest.mark.parametrize("name", ["a", "digits", "breast-cancer", "A_1", "x" * 64, "-", "1"])
def test_names_that_models_may_have(name: str) -> None:
    assert MODEL_NAME.match(name)


@pytest.mark.parametrize("name", ["", "x" * 65, "a.b", "a/b", "a b", "ä", "a\n", "..", "a\x00"])
def test_names_that_could_be_taken_for_something_else_are_none(name: str) -> None:
    assert not MODEL_NAME.match(name)


@pytest.mark.parametrize(("version", "is_one"), [("1", True), ("007", True), ("9" * 18, True), ("9" * 19, False),
                                                 ("", False), ("v1", False), ("1.0", False), ("-1", False),
                                                 ("1\n", False), ("\u0661", False)])  # fmt: skip
def test_versions_are_whole_numbers(version: str, is_one: bool) -> None:
    assert bool(VERSION.match(version)) == is_one


def test_datatypes_are_distinct() -> None:
    assert len(set(DATATYPES)) == len(DATATYPES) == 13


def test_metadata_survives_the_wire_and_says_only_what_is_unusual() -> None:
    spec = TensorSpec("x", "FP32", (-1, 4))
    metadata = ModelMetadata("m", "1", Signature("onnx", (spec,), (), batched=True), BatchPolicy(8, 1.5))
    assert msgspec.json.decode(msgspec.json.encode(metadata), type=ModelMetadata) == metadata
    with_effects = ModelMetadata("m", "1", Signature("python", (), (), batched=False), idempotent=False, timeout_s=2.5)
    assert msgspec.json.decode(msgspec.json.encode(with_effects), type=ModelMetadata) == with_effects
    assert b"optional" not in msgspec.json.encode(spec)
    assert b'"optional":true' in msgspec.json.encode(TensorSpec("x", "FP32", (), optional=True))
