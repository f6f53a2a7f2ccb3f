"""The keys of `model.toml`: what each means, what it may hold, and how the two files of a model become one value.

A file beside the version folders holds for all versions, one inside a version folder for that version and wins. Every
mistake is a ConfigError naming file, line and what was expected. Pure: the texts come from `repository`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from modelmq import settings_source
from modelmq.errors import ConfigError
from modelmq.metadata import DATATYPES, MODEL_NAME, VARIABLE, TensorSpec

RuntimeName = Literal["auto", "onnx", "sklearn", "python"]

OF_THE_MODEL = ("queue", "routing_key")
"""Keys that say where the messages of a model are, whatever the version."""

_TENSORS = 'a list of tables with name, datatype and shape, such as {name = "x", datatype = "FP32", shape = [-1, 64]}'


def _is(expected: str, description: str) -> Meta:
    return Meta(title=expected, description=description)


class ModelSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What the owner of a model may say about it; every key has a default and the file may be absent."""

    runtime: Annotated[RuntimeName, _is('"auto", "onnx", "sklearn" or "python"', "what executes the model")] = "auto"
    trust: Annotated[bool, _is("true or false", "load pickle, joblib and unknown types, which can run any code")] = (
        False
    )
    batched: Annotated[
        bool, _is("true or false", "join requests along axis 0 where all inputs and outputs allow it")
    ] = True
    max_batch_size: Annotated[
        Annotated[int, Meta(ge=1, le=65536)], _is("a whole number from 1 to 65536", "rows computed in one run")
    ] = 32
    max_queue_delay_ms: Annotated[
        Annotated[float, Meta(ge=0, le=60_000)],
        _is(
            "a number of milliseconds from 0 to 60000",
            "how long a batch may wait for more requests; 0 takes what is there",
        ),
    ] = 0.0
    timeout_s: Annotated[
        Annotated[float, Meta(gt=0, le=86_400)],
        _is("a number of seconds above 0, at most 86400", "the deadline of a request that names none"),
    ] = 60.0
    max_run_s: Annotated[
        Annotated[float, Meta(gt=0, le=86_400)],
        _is("a number of seconds above 0, at most 86400", "a run longer than this is hung: its process is ended"),
    ] = 60.0
    threads: Annotated[
        Annotated[int, Meta(ge=1, le=256)], _is("a whole number from 1 to 256", "threads the model computes with")
    ] = 1
    max_memory_bytes: Annotated[
        Annotated[int, Meta(ge=2**26, le=2**53)] | None,
        _is(
            "a whole number of bytes from 67108864 (64 MiB) to 9007199254740992",
            "memory of the model's process; a run that needs more fails",
        ),
    ] = None
    idempotent: Annotated[bool, _is("true or false", "false: a request is never sent to the model twice")] = True
    max_retries: Annotated[
        Annotated[int, Meta(ge=0, le=100)],
        _is("a whole number from 0 to 100", "how often the model may put one request off (Retry)"),
    ] = 10
    routing_key: Annotated[
        Annotated[str, Meta(pattern=f"^{MODEL_NAME.pattern}")] | None,
        _is("letters, digits, _ and -, at most 64", "a second routing key that reaches the model"),
    ] = None
    queue: Annotated[
        Annotated[str, Meta(pattern=r"^(?!amq\.)[A-Za-z0-9_.-]{1,200}\Z")] | None,
        _is(
            'letters, digits, _, . and -, at most 200, not beginning with "amq."',
            "the name of the model's interactive queue; the bulk queue has .bulk behind it",
        ),
    ] = None
    inputs: Annotated[tuple[TensorSpec, ...], _is(_TENSORS, "the inputs, where the model file does not know them")] = ()
    outputs: Annotated[
        tuple[TensorSpec, ...], _is(_TENSORS, "the outputs, where the model file does not know them")
    ] = ()


def parse(texts: Sequence[tuple[str, str]]) -> ModelSettings:
    """The settings of one version from (text, file name) pairs, the model's file before the version's.

    Raises ConfigError.
    """
    known = settings_source.catalog(ModelSettings)
    values: dict[str, settings_source.Given] = {}
    for level, (text, source) in enumerate(texts):
        given = settings_source.from_toml(text, source, known)
        if level > 0:
            for key in OF_THE_MODEL:
                if key in given:
                    raise ConfigError(
                        f"{given[key].origin}: {key} holds for all versions; move it to the model.toml a folder above."
                    )
        values |= given
    for key in ("inputs", "outputs"):
        if key in values:
            _check_tensors(key, values[key])
    return ModelSettings(**{key: given.value for key, given in values.items()})


def _check_tensors(key: str, given: settings_source.Given) -> None:
    specs: tuple[TensorSpec, ...] = given.value
    seen: set[str] = set()
    for spec in specs:
        problem = tensor_problem(spec)
        if not problem and spec.name in seen:
            problem = f'"{spec.name}" is there twice'
        if problem:
            raise ConfigError(f"{given.origin}: {key}: {problem}.")
        seen.add(spec.name)


def tensor_problem(spec: TensorSpec) -> str:
    """What is wrong with a declared tensor, as a clause; empty when nothing is."""
    if not spec.name:
        return "a tensor has an empty name"
    if spec.datatype not in DATATYPES:
        return f'"{spec.name}" has datatype "{spec.datatype}"; expected one of {", ".join(DATATYPES)}'
    if any(size < VARIABLE for size in spec.shape):
        return f'"{spec.name}" has shape {list(spec.shape)}; expected sizes from 0 up, or -1 for any size'
    return ""
