from __future__ import annotations

import json
import math
from dataclasses import dataclass

import pytest

from modelmq.bundles import BUNDLE
from modelmq.errors import NotFound, Unavailable
from modelmq.metadata import Signature, TensorSpec
from modelmq.worker.intake import HELD_ALONE_FROM, Clock, Refusal, Rules, Source, admit, log_id
from modelmq.worker.item import WorkItem
from modelmq.worker.outcome import Outcome
from modelmq.worker.reply_address import rules_of
from modelmq.worker.tombstones import Tombstones

NOW = Clock(monotonic_s=50.0, unix_s=1_000_000.0)
ADDRESS = "amq.gen-me"
RULES = Rules(1000, rules_of("direct"))
SIGNATURE = Signature("python", (TensorSpec("x", "FP32", (-1, 2)),), (), batched=True)


@dataclass(frozen=True)
class Target:
    model: str = "m"
    signature: Signature = SIGNATURE
    max_rows: int = 4
    timeout_s: float = 60.0


class NoOrigin:
    """Intake only passes it on."""

    open = True

    def settle(self, delivery: object, reply_to: str, answer: object) -> None:
        raise AssertionError

    def flush(self, *, at_once: bool = False) -> None:
        raise AssertionError


SOURCE = Source(NoOrigin(), "interactive")


def body(rows: int = 1, **more: object) -> bytes:
    tensor = {"name": "x", "datatype": "FP32", "shape": [rows, 2], "data": [0.5] * (2 * rows)}
    return json.dumps({"inputs": [tensor], **more}).encode()


def taken(made, target: Target = Target(), rules: Rules = RULES) -> WorkItem:
    result = admit(made, SOURCE, lambda version: target, rules, NOW)
    assert not isinstance(result, Refusal), result
    assert result[0] is target
    return result[1]


def refused(made, resolve=lambda version: Target(), rules: Rules = RULES) -> tuple[str, str, str]:
    result = admit(made, SOURCE, resolve, rules, NOW)
    assert isinstance(result, Refusal)
    return result.answer.code, result.answer.error, result.reply_to


def test_a_request_that_fits_becomes_a_work_item(delivery) -> None:
    made = delivery(body(2, id="r-1", outputs=[{"name": "y"}]), reply_to=ADDRESS)
    item = taken(made)
    assert (item.reply_to, item.request_id, item.outputs, item.rows) == (ADDRESS, "r-1", ("y",), 2)
    assert item.inputs["x"].tolist() == [[0.5, 0.5], [0.5, 0.5]]
    assert (item.origin, item.delivery, item.lane) == (SOURCE.origin, made, "interactive")
    assert item.received_s == NOW.monotonic_s


def test_a_request_that_names_no_address_is_computed_all_the_same(delivery) -> None:
    assert taken(delivery(body())).reply_to == ""


@pytest.mark.parametrize(
    ("properties", "left_s"),
    [
        ({}, 60.0),
        ({"headers": {"deadline": 1_000_005_000}}, 5.0),
        ({"headers": {"deadline": 1_000_000_500.0}}, 0.5),
        ({"expiration": "2500"}, 2.5),
        ({"expiration": "2500", "headers": {"deadline": 1_000_009_000}}, 9.0),
        ({"expiration": "soon"}, 60.0),
        ({"expiration": "9" * 200}, 10 * 365 * 86_400.0),
        ({"headers": {"deadline": 2**62}}, 10 * 365 * 86_400.0),
    ],
    ids=str,
)
def test_the_deadline_is_the_headers_else_the_expiration_else_the_models(delivery, properties, left_s) -> None:
    assert taken(delivery(body(), **properties)).deadline_s == pytest.approx(NOW.monotonic_s + left_s)


@pytest.mark.parametrize("value", ["soon", True, -1, [1], math.nan, math.inf, -math.inf, {"a": 1}], ids=repr)
def test_a_deadline_that_is_no_time_is_invalid(delivery, value) -> None:
    code, error, reply_to = refused(delivery(body(), headers={"deadline": value}, reply_to=ADDRESS))
    assert (code, reply_to) == ("invalid", ADDRESS)
    assert '"deadline" must be a number of milliseconds' in error


def test_a_deadline_that_has_passed_is_expired(delivery) -> None:
    assert refused(delivery(body(), headers={"deadline": 1_000_000_000}))[0] == "expired"


def test_an_address_that_is_not_the_callers_own_is_never_answered(delivery) -> None:
    code, _, reply_to = refused(delivery(body(), reply_to="orders"))
    assert (code, reply_to) == ("invalid", "")
    assert (
        taken(delivery(body(), reply_to="orders"), rules=Rules(1000, rules_of("direct", ("ord",)))).reply_to == "orders"
    )


@pytest.mark.parametrize(
    ("routing_key", "version"), [("m", None), ("m.3", "3"), ("m.3.bulk", "3"), ("m.bulk", None), ("a key, odd!", None)]
)
def test_the_version_is_taken_from_the_routing_key(delivery, routing_key: str, version: str | None) -> None:
    asked: list[str | None] = []

    def resolve(wanted: str | None) -> Target:
        asked.append(wanted)
        return Target()

    admit(delivery(body(), routing_key=routing_key), SOURCE, resolve, RULES, NOW)
    assert asked == [version]


@pytest.mark.parametrize("error", [NotFound("No version 9."), Unavailable("Version 9 does not load.")])
def test_what_the_resolver_says_is_the_answer(delivery, error: NotFound | Unavailable) -> None:
    def resolve(version: str | None) -> Target:
        raise error

    assert refused(delivery(body(), reply_to=ADDRESS), resolve) == (error.code, error.message, ADDRESS)


def test_a_body_over_the_limit_is_too_large_before_it_is_read(delivery) -> None:
    code, error, _ = refused(delivery(b"[" * 1001))
    assert code == "too_large"
    assert "1001 bytes; the limit is 1000" in error


def test_more_rows_than_a_batch_are_refused_with_advice(delivery) -> None:
    assert taken(delivery(body(4))).rows == 4
    code, error, _ = refused(delivery(body(5)))
    assert code == "invalid"
    assert "5 rows; model m takes at most 4" in error


@pytest.mark.parametrize(
    ("content", "properties", "code"),
    [
        (b"", {}, "invalid"),
        (b"\xff\x00garbage", {}, "invalid"),
        (b'{"inputs": [', {}, "invalid"),
        (b"[" * 900, {}, "invalid"),
        (body(), {"content_type": "text/plain"}, "unsupported"),
        (body(), {"content_type": "application/json; charset=utf-8"}, ""),
    ],
    ids=["empty", "bytes", "cut", "nested", "type", "charset"],
)
def test_bodies_are_checked_as_the_gateway_would(delivery, content: bytes, properties, code: str) -> None:
    result = admit(delivery(content, **properties), SOURCE, lambda version: Target(), RULES, NOW)
    assert (result.answer.code if isinstance(result, Refusal) else "") == code


def test_properties_that_cannot_be_read_are_refused_and_nobody_is_answered(delivery) -> None:
    code, error, reply_to = refused(delivery(body(), raw=b"\xff\xfc\x09abc"))
    assert (code, reply_to) == ("invalid", "")
    assert "properties cannot be read" in error


def test_a_fault_of_ours_is_an_answer_too(delivery) -> None:
    def resolve(version: str | None) -> Target:
        raise ZeroDivisionError("odd")

    result = admit(delivery(body(), reply_to=ADDRESS), SOURCE, resolve, RULES, NOW)
    assert isinstance(result, Refusal)
    assert (result.answer.outcome, result.reply_to) == (Outcome.FAILED, ADDRESS)
    assert "ZeroDivisionError" in result.answer.error


def test_redelivered_requests_join_one_another_but_no_fresh_ones(delivery) -> None:
    fresh, again = taken(delivery(body())), taken(delivery(body(), redelivered=True))
    assert fresh.key == taken(delivery(body())).key
    assert again.key == taken(delivery(body(), redelivered=True)).key
    assert fresh.key != again.key


def test_a_request_delivered_too_often_is_computed_alone(delivery) -> None:
    def key(count: object) -> object:
        return taken(delivery(body(), redelivered=True, headers={"x-delivery-count": count})).key

    assert key(HELD_ALONE_FROM - 1) == key(1)
    assert key(HELD_ALONE_FROM) != key(HELD_ALONE_FROM)
    assert key("many") == key(1)


def test_a_model_that_is_not_batched_joins_nothing(delivery) -> None:
    single = Target(signature=Signature("python", SIGNATURE.inputs, (), batched=False))
    assert taken(delivery(body()), single).key != taken(delivery(body()), single).key


def test_logs_know_a_request_by_its_ids(delivery) -> None:
    assert log_id(delivery(message_id="m", correlation_id="c")) == "m"
    assert log_id(delivery(correlation_id="c")) == "c"
    assert log_id(delivery()) == ""
    assert log_id(delivery(raw=b"\xff\xfc\x09abc")) == ""


def test_a_bundle_that_nobody_could_take_apart_is_invalid(delivery) -> None:
    code, error, reply_to = refused(delivery(b"garbage", content_type=BUNDLE, reply_to=ADDRESS))
    assert (code, reply_to) == ("invalid", "")
    assert "send each request as a message of its own" in error


def test_what_was_withdrawn_is_not_even_decoded_and_only_by_address_and_id_together(delivery) -> None:
    tombstones = Tombstones()
    tombstones.add((ADDRESS, "c-1"), 5.0, NOW.monotonic_s)
    rules = Rules(1000, rules_of("direct"), tombstones)
    target = Target()
    result = admit(delivery(b"no JSON", reply_to=ADDRESS, correlation_id="c-1"), SOURCE, lambda _: target, rules, NOW)
    assert isinstance(result, Refusal)
    assert (result.answer.outcome, result.answer.code, result.target) == (Outcome.CANCELLED, "cancelled", target)
    for name in ({"reply_to": ADDRESS, "correlation_id": "c-2"}, {"reply_to": "amq.gen-you", "correlation_id": "c-1"}):
        assert taken(delivery(body(), **name), rules=rules).name == tuple(name.values())
    assert taken(delivery(body(), correlation_id="c-1"), rules=rules).reply_to == ""
