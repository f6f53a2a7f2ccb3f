"""A worker's message path under messages that no honest caller sends: delivery, parts, intake, verdict, reply and ack.

All of it but the model and the broker: what came in is always given back to the broker, exactly once, and nothing is
ever published to an address that may not be answered.
"""

from __future__ import annotations

import asyncio
import io
import json
import struct
import tracemalloc
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random
from types import SimpleNamespace

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from modelmq import bundles
from modelmq.amqp import Channel, Delivery, Properties
from modelmq.amqp.confirms import ConfirmWindow
from modelmq.amqp.properties import encode_properties
from modelmq.amqp.wire import Confirmed
from modelmq.bundles import BUNDLE
from modelmq.errors import InvalidRequest, ModelFailed, NotFound
from modelmq.events import MessageRefused
from modelmq.messages import DEAD_LETTER_EXCHANGE, DIRECT_REPLY_TO, ReplyMode
from modelmq.metadata import Signature, TensorSpec
from modelmq.observe.logs import JsonLog
from modelmq.worker import intake
from modelmq.worker.confirmed import ConfirmedPublisher
from modelmq.worker.intake import Clock, Refusal, Rules, Source
from modelmq.worker.item import Message
from modelmq.worker.lane import LaneChannel, LaneOf
from modelmq.worker.outcome import OUTCOME_OF_CODE, Answer, Outcome
from modelmq.worker.reply_address import rules_of
from tests import hostile

NOW = Clock(monotonic_s=50.0, unix_s=1_000_000.0)
OF = LaneOf("m", "interactive")
PUBLISH, ACK, NACK = (60, 40), (60, 80), (60, 120)
SIGNATURE = Signature(
    "python",
    (TensorSpec("x", "FP32", (-1, 2)), TensorSpec("t", "BYTES", (-1,), optional=True)),
    (TensorSpec("y", "INT64", (-1,)),),
    batched=True,
)
ANSWERS = (
    Answer(Outcome.SUCCEEDED, b"yes"),
    Answer(Outcome.DEAD, b'{"error":"dead"}', "dead", "It died: \udcff." * 100, attempts=3),
    Answer(Outcome.EXPIRED, b"late", "expired", "Late."),
)


@dataclass(frozen=True)
class Target:
    model: str = "m"
    signature: Signature = SIGNATURE
    max_rows: int = 4
    timeout_s: float = 60.0


class Carrier:
    """What a channel writes, frame by frame."""

    blocked, writable, frame_max = False, True, 131_072

    def __init__(self) -> None:
        self.publishes: list[tuple[int, str, bytes]] = []
        self.acked = 0

    def flush(self) -> None:
        """What is sent is there at once."""

    def send(self, data: bytes) -> None:
        while data:
            kind, channel, size = struct.unpack_from(">BHI", data)
            assert size + 8 <= self.frame_max
            assert data[7 + size] == 0xCE
            self._frame(kind, channel, data[7 : 7 + size])
            data = data[8 + size :]

    def _frame(self, kind: int, channel: int, load: bytes) -> None:
        method = struct.unpack_from(">HH", load) if kind == 1 else None
        if method == PUBLISH:
            end = 7 + load[6]
            self.publishes.append((channel, load[7:end].decode(), load[end + 1 : end + 1 + load[end]]))
        elif method in (ACK, NACK):
            self.acked += 1

    def release(self, number: int) -> None: ...
    def require_open(self) -> None: ...


TEXT = st.text(max_size=60) | st.binary(max_size=80).map(lambda data: data.decode("utf-8", "surrogateescape"))
SHORT = TEXT.filter(lambda text: len(text.encode("utf-8", "surrogatepass")) < 256).map(
    lambda text: text.encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape")  # as they come over the wire
)
ADDRESSES = st.sampled_from(
    [
        "amq.gen-me",
        "amq.gen-\udcff",
        "ml-gateway.g",
        f"{DIRECT_REPLY_TO}.g1h2AA==.abc",
        f"{DIRECT_REPLY_TO}.",
        f"{DIRECT_REPLY_TO}",
        f"{DIRECT_REPLY_TO}.g1h2.\udcff",
        f"{DIRECT_REPLY_TO}.g1h2AA==.abc\n",
        "ml-dead-letter-queue",
        "jobs.a",
        "jobs.",
        " amq.gen-me",
        "AMQ.GEN-me",
        "amq.gen" + "-" * 240,
    ]
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats()
    | SHORT
    | st.binary(max_size=20)
    | st.datetimes(min_value=datetime(1970, 1, 2), timezones=st.just(UTC))
    | st.decimals(-(2**31), 2**31 - 1, places=2, allow_nan=False).filter(lambda number: abs(number) < 2**24)
)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(SHORT, inner, max_size=3))
NAMES = (
    st.sampled_from(["deadline", "x-delivery-count", "inference-header-content-length", "status", "traceparent"])
    | SHORT
)
HEADERS = st.none() | st.dictionaries(NAMES, VALUES, max_size=5)
PROPERTIES = st.builds(
    Properties,
    content_type=st.none() | st.sampled_from(["application/json", BUNDLE, "application/octet-stream"]) | SHORT,
    content_encoding=st.none() | SHORT,
    headers=HEADERS,
    delivery_mode=st.none() | st.integers(0, 255),
    priority=st.none() | st.integers(0, 255),
    correlation_id=st.none() | SHORT,
    reply_to=st.none() | ADDRESSES | SHORT,
    expiration=st.none() | st.sampled_from(["0", "1000", "9" * 200, "-1", "٣", "1e9"]) | SHORT,
    message_id=st.none() | SHORT,
    type=st.none() | SHORT,
    user_id=st.none() | SHORT,
    app_id=st.none() | SHORT,
)
GOOD = {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}]}
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
SIZES = st.sampled_from([0, 1, 2, -1, 2**31 - 1, 2**31, 2**62, 10**9, 10**30])
TENSORS = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["x", "t", "z"]) | JSON_VALUES,
        "shape": st.lists(SIZES, max_size=5) | JSON_VALUES,
        "datatype": st.sampled_from(["FP32", "BYTES", "INT64", "FP16", "BOOL"]) | JSON_VALUES,
        "data": st.lists(JSON_VALUES, max_size=4) | JSON_VALUES,
    }
)
REQUESTS = st.just(GOOD) | st.fixed_dictionaries(
    {"inputs": st.lists(TENSORS, max_size=2) | JSON_VALUES},
    optional={"id": JSON_VALUES, "parameters": JSON_VALUES, "outputs": JSON_VALUES},
)
BODIES = REQUESTS.map(lambda value: json.dumps(value).encode("utf-8", "surrogatepass")) | st.binary(max_size=80)
PART_FIELDS = st.tuples(
    st.text(max_size=90),
    st.sampled_from([0, 1, 2**62, 2_000_000_000]),
    st.text(max_size=90),
    st.sampled_from(["application/json", BUNDLE, ""]) | st.text(max_size=90),
    st.none() | st.dictionaries(NAMES.filter(str.isprintable), st.text(max_size=9) | st.integers(-(2**63), 2**63 - 1)),
    BODIES,
)
ODD = st.integers(-3, 3) | st.none() | st.binary(max_size=5) | st.lists(st.integers(0, 9), max_size=8)
BUNDLES = st.lists(PART_FIELDS, min_size=1, max_size=4).map(msgspec.msgpack.encode) | st.lists(
    PART_FIELDS | ODD, max_size=8
).map(msgspec.msgpack.encode)


@st.composite
def raw_messages(draw: st.DrawFn) -> tuple[bytes, str, bytes, bool]:
    """Encoded properties, routing key, body, and whether it comes again."""
    properties = draw(PROPERTIES)
    raw = bytearray(encode_properties(properties))
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 3]))):
        raw[draw(st.integers(0, len(raw) - 1))] = draw(st.integers(0, 255))
    if draw(st.integers(0, 9)) == 0:
        del raw[draw(st.integers(0, len(raw))) :]
    body = bytearray(draw(BUNDLES if properties.content_type == BUNDLE else BODIES))
    if body and draw(st.integers(0, 4)) == 0:
        body[draw(st.integers(0, len(body) - 1))] = draw(st.integers(0, 255))
    key = draw(st.sampled_from(["m", "m.1", "m.2", "m.1.bulk", "other"]) | SHORT)
    return bytes(raw), key, bytes(body), draw(st.booleans())


def honoured(address: str, mode: ReplyMode) -> bool:
    """The rule in other words than the code's."""
    own = "ml-gateway." if mode == "queue" else f"{DIRECT_REPLY_TO}."
    return any(address.startswith(beginning) for beginning in ("amq.gen-", "jobs.", own))


async def feed(messages: Sequence[tuple[bytes, str, bytes, bool]], mode: ReplyMode) -> tuple[Carrier, LaneChannel]:
    """All of them through one lane, each admitted request answered by the next of ANSWERS."""
    carrier, rules = Carrier(), rules_of(mode, ("jobs.",))
    confirming = Channel(2, carrier)
    confirming._confirms = ConfirmWindow()
    confirmed = ConfirmedPublisher(DEAD_LETTER_EXCHANGE, rules.exchange)
    for way in confirmed._ways.values():
        way.channel = confirming
    log, count = JsonLog(io.StringIO(), "debug", "worker"), 0

    def resolve(version: str | None) -> Target:
        if version not in (None, "1"):
            raise NotFound("There is no such version.")
        return Target()

    def accept(messages: Sequence[Message], lane: LaneChannel) -> None:
        nonlocal count
        for message in messages:
            admitted = intake.admit(message, Source(lane, "interactive"), resolve, Rules(10_000, rules), NOW)
            log(MessageRefused(intake.log_id(message), "m", "invalid", "why"))
            if isinstance(admitted, Refusal):
                answer, reply_to = admitted.answer, admitted.reply_to
                assert answer.code in OUTCOME_OF_CODE
                assert answer.code != "failed", answer.error
                msgspec.json.decode(answer.body)
            else:
                answer, reply_to = ANSWERS[count % len(ANSWERS)], admitted[1].reply_to
                assert 1 <= admitted[1].rows <= Target.max_rows
            assert not reply_to or honoured(reply_to, mode)
            lane.settle(message, reply_to, answer)
            count += 1
        lane.flush()

    proving = SimpleNamespace(proven=lambda _address: True)
    gone: list[str] = []
    channel = Channel(1, carrier)
    lane = LaneChannel(OF, channel, confirmed, proving, rules, accept, gone.append)  # type: ignore[arg-type]
    for tag, (raw, key, body, redelivered) in enumerate(messages, 1):
        delivery = Delivery(1, "c1", tag, redelivered, "ml-model-exchange", key)
        delivery._filled(raw, body, len(body))
        lane._on_delivery(delivery)
        while len(confirming._confirms):
            confirming.receive(Confirmed(2, confirming._confirms._first, False, True))
    await asyncio.sleep(0)
    return carrier, lane


@settings(deadline=None, max_examples=40)
@given(st.lists(raw_messages(), min_size=1, max_size=2), st.sampled_from(["direct", "queue"]))
@example([(b"", "m", b"", False)], "direct")
@example([(encode_properties(Properties(reply_to="amq.gen-\udcff")), "m", b"", False)], "direct")
@example(
    [
        (
            encode_properties(Properties(reply_to="amq.gen-me")),
            "m",
            b'{"inputs":[{"name":"x","shape":[0,2147483647,2147483647,2147483647],"datatype":"FP32","data":[]}]}',
            False,
        )
    ],
    "direct",
)
def test_whatever_comes_is_settled_once_and_answered_only_where_it_may_be(
    messages: list[tuple[bytes, str, bytes, bool]], mode: ReplyMode
) -> None:
    check_settled(*asyncio.run(feed(messages, mode)), mode)


@pytest.mark.parametrize("mode", ["direct", "queue"])
@pytest.mark.parametrize("seed", range(5))
def test_thousands_that_are_nearly_right_are_settled_and_answered_likewise(mode: ReplyMode, seed: int) -> None:
    """What hypothesis is too slow for."""
    chance = Random(seed)
    flood = [hostile.message(chance) for _ in range(400)]
    messages = [
        (encode_properties(Properties(**fields)), key, body, chance.random() < 0.5) for key, fields, body in flood
    ]
    check_settled(*asyncio.run(feed(messages, mode)), mode)


def check_settled(carrier: Carrier, lane: LaneChannel, mode: ReplyMode) -> None:
    assert lane.held == 0
    assert not lane._tracker._open
    assert not lane._unsettled
    assert not lane._wanted_back
    assert carrier.acked >= 1
    for channel, exchange, key in carrier.publishes:
        if exchange == DEAD_LETTER_EXCHANGE:
            assert channel == 2
        else:
            address = key.decode("utf-8", "surrogateescape")
            assert exchange == rules_of(mode).exchange
            assert honoured(address, mode)
            assert (channel == 2) == address.startswith("jobs."), "what may be kept is confirmed"


@pytest.mark.parametrize("where", ["message", "bundle"])
def test_a_poisonous_request_with_headers_as_large_as_a_frame_is_put_aside_all_the_same(where: str) -> None:
    large = {f"h{number}": "x" * 1000 for number in range(60)}
    body = json.dumps(GOOD).encode()
    if where == "message":
        large |= {f"k{number}": "y" * 1000 for number in range(68)}
        raw = encode_properties(Properties(headers=large, message_id="dead"))
        messages = [(raw, "m", body, False)] * 2  # the second answer is the dead one
    else:
        parts = [("c", 2_000_000_000, "m", "application/json", {name: text * 30 for name, text in large.items()}, body)]
        raw = encode_properties(Properties(content_type=BUNDLE, reply_to="amq.gen-me"))
        messages = [(raw, "m", msgspec.msgpack.encode(parts * 2), False)]
    carrier, lane = asyncio.run(feed(messages, "direct"))
    assert [exchange for _, exchange, _ in carrier.publishes if exchange] == [DEAD_LETTER_EXCHANGE]
    assert lane.held == 0


def test_a_bundle_of_a_million_nothings_is_refused_before_it_is_made() -> None:
    part = msgspec.msgpack.encode(["", 0, "", "", None, b""])
    many = b"\xdd" + (10**6).to_bytes(4, "big") + part * 10**6
    headers = msgspec.msgpack.encode([["", 0, "", "", {f"{n:x}": 1 for n in range(200_000)}, b""]])
    tracemalloc.start()
    try:
        for body in (many, headers):
            with pytest.raises(InvalidRequest):
                bundles.decode_requests(body)
        with pytest.raises(ModelFailed):
            bundles.decode_replies(many)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()
