from __future__ import annotations

from collections import Counter

import pytest

from modelmq.amqp import Delivery, Properties
from modelmq.client import request as said
from modelmq.client.request import Request, properties_of, reply_error, route
from modelmq.errors import REQUEST_ERRORS, ChannelClosed, ModelFailed, NotFound
from modelmq.protocol import encode_error


def asked(**fields: object) -> Request:
    return Request(**({"model": "digits", "body": b"{}", "deadline_unix_s": 1000.0} | fields))  # type: ignore[arg-type]


def reply(body: bytes, *, size: int | None = None) -> Delivery:
    delivery = Delivery(1, "c1", 1, False, "", "")
    delivery.body = body
    delivery.body_size = len(body) if size is None else size
    return delivery


def test_the_message_is_the_contracts() -> None:
    assert properties_of(asked(), "id-1", "an-address", 990.0) == Properties(
        content_type="application/json",
        headers={"deadline": 1_000_000},
        delivery_mode=2,
        correlation_id="id-1",
        reply_to="an-address",
        expiration="15000",
        message_id="id-1",
    )


def test_the_callers_headers_are_kept_and_not_changed() -> None:
    mine = {"traceparent": "00-1", "deadline": 5}
    properties = properties_of(asked(headers=mine, message_id="m", content_type="text/x"), "id-1", "an-address", 990.0)
    assert properties.headers == {"traceparent": "00-1", "deadline": 1_000_000}
    assert (properties.message_id, properties.content_type) == ("m", "text/x")
    assert mine["deadline"] == 5


def test_a_deadline_in_the_far_future_is_one_the_broker_takes() -> None:
    expiration = properties_of(asked(deadline_unix_s=1e12), "id-1", "an-address", 0.0).expiration
    assert expiration is not None
    assert int(expiration) < 2**32 * 1000


def test_a_model_has_one_shard_and_models_spread() -> None:
    assert route("digits", "3", "bulk", 4).key == "digits.3.bulk"
    shards = Counter(route(f"model-{number}", None, "interactive", 4).shard for number in range(400))
    assert set(shards) == {0, 1, 2, 3}
    assert min(shards.values()) > 50
    assert route("digits", None, "interactive", 4).shard == route("digits", "3", "bulk", 4).shard
    assert route("digits", None, "interactive", 4).shard == 2, "a shard must not change between versions of ModelMQ"


@pytest.mark.parametrize("model", ["", "a.b", "a b", "x" * 65, "a\n", "é"])
def test_what_is_no_name_is_not_found(model: str) -> None:
    with pytest.raises(NotFound, match="no model's name"):
        route(model, None, "interactive", 1)


@pytest.mark.parametrize("version", ["", "a", "1.2", "-1", "1" * 19])
def test_what_is_no_version_is_not_found(version: str) -> None:
    with pytest.raises(NotFound, match="no version of model m"):
        route("m", version, "interactive", 1)


@pytest.mark.parametrize(("code", "error"), REQUEST_ERRORS.items())
def test_every_code_is_its_error(code: str, error: type[Exception]) -> None:
    found = reply_error(Properties(headers={"status": code}), reply(encode_error("because")))
    assert type(found) is error
    assert str(found) == "because"


def test_a_response_is_no_error() -> None:
    assert reply_error(Properties(), reply(b"{}")) is None
    assert reply_error(Properties(headers={"other": 1}), reply(b"")) is None


def test_odd_replies_are_failures() -> None:
    assert type(reply_error(Properties(headers={"status": 7}), reply(b"\xff"))) is ModelFailed
    too_large = reply_error(Properties(), reply(b"", size=20_000_000))
    assert too_large is not None
    assert "20000000 bytes" in too_large.message


def test_refusals_say_what_to_do() -> None:
    missing = said.refusal(ChannelClosed("RabbitMQ closed the channel: 404 no exchange.", reply_code=404))
    assert missing.startswith("An exchange is missing, run modelmq topology apply (")
    forbidden = said.refusal(ChannelClosed("RabbitMQ closed the channel: 403 refused.", reply_code=403))
    assert "permissions" in forbidden
    assert said.unavailable(missing).retry_after_s
    assert said.refused(asked()).retry_after_s
