"""What is asked, and what only the right answer can say: the models' arithmetic, as callers and checker know it.

A model is asked about one number, which no other request of the run has, and computes another from it and its own
name. So an answer that belongs to another request or comes from another model is seen. Pure.
"""

from __future__ import annotations

from typing import Any, Literal
from zlib import crc32

import msgspec

FACTOR, PRIME, SALTS = 2_654_435_761, 2_147_483_647, 1_000_003
PER_CALLER = 10_000_000
"""Numbers of one caller; below 300 callers the models' products fit into 64 bits."""

Mark = Literal["", "crash", "hang", "memory", "slow", "raise", "retry"]
MARKS: tuple[Mark, ...] = ("", "crash", "hang", "memory", "slow", "raise", "retry")
"""By what is sent to the model."""
POISON = frozenset({"crash", "hang", "memory"})
"""Marks of requests that end their model's process, each time they are run."""


class Question(msgspec.Struct, frozen=True):
    """One request. `number` is unique in the run, and so is the id made of it."""

    number: int
    model: str
    mark: Mark
    deadline: float
    """On the clock of the ledger."""

    @property
    def id(self) -> str:
        """The request's name everywhere: V2 id, message_id, correlation_id."""
        return f"c{self.number}"


def body_of(question: Question) -> bytes:
    """The request of the protocol."""
    numbers = f"[{question.number},{MARKS.index(question.mark)}]"
    tensor = f'{{"name":"x","datatype":"INT64","shape":[1,2],"data":{numbers}}}'
    return f'{{"id":"{question.id}","inputs":[{tensor}]}}'.encode()


def expected(model: str, number: int) -> str:
    """What `answer_of` must tell of the answer to this question."""
    return f"c{number} {model} {number} {(number * FACTOR + salt(model)) % PRIME}"


def salt(model: str) -> int:
    """What tells the answers of one model from those of another."""
    return crc32(model.encode()) % SALTS


class _Output(msgspec.Struct):
    data: list[int]


class _Response(msgspec.Struct):
    model_name: str
    outputs: list[_Output]
    id: str = ""


_responses = msgspec.json.Decoder(_Response)


def answer_of(body: bytes) -> str:
    """What a response says, in the words of `expected`; something else for what is none."""
    try:
        response = _responses.decode(body)
        number, value = response.outputs[0].data
    except (msgspec.DecodeError, ValueError, IndexError):
        return f"unreadable: {body[:80]!r}"
    return f"{response.id} {response.model_name} {number} {value}"


class _Named(msgspec.Struct):
    id: str = ""


_named = msgspec.json.Decoder(_Named)


def id_in(body: bytes) -> str:
    """The id in the body of a request; empty where there is none to be read."""
    try:
        return _named.decode(body).id
    except msgspec.DecodeError:
        return ""


def code_of_error(headers: dict[str, Any] | None) -> str:
    """The code in an AMQP reply's headers; empty for a response."""
    return str((headers or {}).get("status", ""))
