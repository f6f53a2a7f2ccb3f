"""Messages that no honest caller sends, by a seed: for the worker's path without a broker, and for a real one.

Everything a user may publish who may only ask. What is good stands beside it, so that a flood can be mixed.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from random import Random
from typing import Any, NamedTuple

import msgspec

from modelmq.bundles import BUNDLE

DIRECT = "amq.rabbitmq.reply-to"
ADDRESSES = (
    "amq.gen-nobody",
    "amq.gen-\udcff",
    "ml-gateway.nobody",
    f"{DIRECT}.g1h2AA==.abc",
    f"{DIRECT}.",
    DIRECT,
    f"{DIRECT}.g1h2.\udcff",
    f"{DIRECT}.g1h2AA==.abc\n",
    f"{DIRECT}." + "A" * 200 + ".b",
    "ml-dead-letter-queue",
    "victim",
    "jobs.",
    " amq.gen-me",
    "AMQ.GEN-me",
    "amq.gen" + "-" * 240,
)
TYPES = (
    "application/json",
    "application/json; charset=latin-1",
    "application/octet-stream",
    "text/plain",
    "",
    "a\udcff",
)
SIZES = (0, 1, 2, 3, -1, 2**31 - 1, 2**31, 2**62, 10**9, 10**30, 1.5, "1", None, True)
DATATYPES = ("FP32", "FP64", "BYTES", "INT64", "UINT64", "FP16", "BOOL", "BF16", "", None, 7)
GOOD = b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP64","data":[1]}]}'
RAW_BODIES = (
    b"",
    b"null",
    b"[]",
    b"{}",
    b"\xff\xfe",
    b'{"inputs":' + b"[" * 50_000,
    b'{"z":' + b'{"z":' * 50_000,
    b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP64","data":[NaN]}]}',
    b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP64","data":[-Infinity]}]}',
    b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP64","data":[1e999]}]}',
    b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP64","data":[' + b"9" * 5_000 + b"]}]}",
    b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP64","data":[' + b"[" * 5_000 + b"]}]}",
    b'{"inputs":[{"name":"x","shape":[1000000000],"datatype":"FP64","data":[]}]}',
    b'{"inputs":[{"name":"x","shape":[4294967296,4294967296],"datatype":"FP64","data":[]}]}',
    b'{"inputs":[{"name":"x","shape":[0,2147483647,2147483647,2147483647],"datatype":"FP64","data":[]}]}',
    b'{"inputs":[{"name":"x","shape":[1],"datatype":"BYTES","data":["\\ud800"]}]}',
    b'{"inputs":[{"name":"\\udfff","shape":[1],"datatype":"FP64","data":[1]}]}',
    b'{"inputs":[],"inputs":[{"name":"x","shape":[1],"shape":[2],"datatype":"FP64","data":[1],"data":[1,2]}]}',
    b'{"id":"a","id":7,"inputs":[{"name":"x","shape":[1],"datatype":"FP64","data":["1"]}]}',
    b'\xef\xbb\xbf{"inputs":[]}',
)


class Hostile(NamedTuple):
    """What is published. `fields` are properties by AMQP's names, texts as `modelmq.amqp` writes them."""

    key: str
    fields: dict[str, Any]
    body: bytes


def message(chance: Random, model: str = "m") -> Hostile:
    """Any message that RabbitMQ takes; never one that a worker must answer with a success."""
    bundle = chance.random() < 0.25
    fields: dict[str, Any] = {"content_type": BUNDLE if bundle else chance.choice(TYPES)}
    if chance.random() < 0.7:
        fields["reply_to"] = chance.choice(ADDRESSES)
    for name in ("correlation_id", "message_id", "type", "app_id", "content_encoding"):
        if chance.random() < 0.4:
            fields[name] = text(chance)
    if chance.random() < 0.5:
        fields["headers"] = table(chance, 0)
    if chance.random() < 0.3:
        fields["expiration"] = chance.choice(("60000", "99999999"))
    if chance.random() < 0.3:
        fields["timestamp"] = datetime.fromtimestamp(chance.randrange(2**32), UTC)
    key = chance.choice((model, model, model, f"{model}.1", f"{model}.bulk"))
    return Hostile(key, fields, bundled(chance) if bundle else body(chance))


def text(chance: Random) -> str:
    data = chance.choice((b"", b"id", b"\xff\xfe", "ä€\u2028".encode(), b"x" * 255, b"a\0b\r\nc", b"{}"))
    return data.decode("utf-8", "surrogateescape")


def table(chance: Random, depth: int) -> dict[str, Any]:
    names = ("deadline", "x-delivery-count", "inference-header-content-length", "status", "attempts", "", "k" * 255)
    return {chance.choice((*names, text(chance))): value(chance, depth) for _ in range(chance.randrange(5))}


def value(chance: Random, depth: int) -> Any:
    plain = (
        None,
        True,
        0,
        -1,
        2**63 - 1,
        -(2**63),
        1.5,
        float("inf"),
        float("nan"),
        "",
        "soon",
        b"\xff",
        Decimal("1.5"),
    )
    if depth < 20 and chance.random() < 0.3:
        if chance.random() < 0.5:
            return table(chance, depth + 1)
        return [value(chance, depth + 1) for _ in range(chance.randrange(3))]
    return chance.choice((*plain, datetime.fromtimestamp(chance.randrange(2**31), UTC)))


def body(chance: Random) -> bytes:
    """JSON that is nearly right, or nothing of the kind."""
    kind = chance.random()
    if kind < 0.3:
        return chance.choice(RAW_BODIES)
    if kind < 0.5:
        broken = bytearray(GOOD)
        for _ in range(chance.randint(1, 4)):
            broken[chance.randrange(len(broken))] = chance.randrange(256)
        return bytes(broken)
    if kind < 0.6:
        return GOOD[: chance.randrange(len(GOOD))]
    tensor = {
        "name": chance.choice(("x", "x", "x", "y", "", None, 7, "\udcff")),
        "shape": chance.choice((1, None, "1", [chance.choice(SIZES) for _ in range(chance.choice((0, 1, 2, 4, 40)))])),
        "datatype": chance.choice(DATATYPES),
        "data": chance.choice(([], [1], ["1"], [[1]], [None], [True], {}, 1, "1", [[[]]], [1e308] * 3, [{}])),
        "parameters": chance.choice(({}, None, {"binary_data_size": 8}, {"a": []}, 1)),
    }
    tensor = {name: given for name, given in tensor.items() if chance.random() < 0.95}
    whole = {
        "id": chance.choice(("a", 1, None, "x" * 300)),
        "inputs": chance.choice(([tensor], [tensor, tensor], [], tensor, None)),
        "parameters": chance.choice(({"timeout": -1}, {"timeout": "x"}, None, [])),
        "outputs": chance.choice(([{"name": "nothing"}], [{}], None, 7)),
    }
    return json.dumps(whole).encode("utf-8", "surrogatepass")


def bundled(chance: Random) -> bytes:
    """Parts of which some cannot be read, or bytes that are no bundle."""
    if chance.random() < 0.3:
        return chance.choice(
            (b"", b"\x90", b"\xdd\xff\xff\xff\xff", b"\x91" * 3000, b"\xc1", b"\xdc\x00\x41" + b"\x90" * 65)
        )
    parts: list[Any] = []
    for _ in range(chance.choice((1, 2, 5, 64, 65))):
        fields = ["c", chance.choice((0, 1, 2**62)), "m", "application/json", None, body(chance)]
        if chance.random() < 0.2:
            fields[chance.randrange(6)] = chance.choice(
                (None, -1, 2**64 - 1, b"", "y" * 300, {"h" * 70: 1}, {"n": 1.5})
            )
        parts.append(fields)
    data = bytearray(msgspec.msgpack.encode(parts))
    if chance.random() < 0.3:
        data[chance.randrange(len(data))] = chance.randrange(256)
    return bytes(data)
