from __future__ import annotations

import pytest

from modelmq import bundles
from modelmq.amqp.properties import encode_properties
from modelmq.bundles import BUNDLE, RequestPart
from modelmq.worker.dead_letter import copy_of
from modelmq.worker.outcome import Answer, Outcome
from modelmq.worker.parts import messages_of

ADDRESS = "amq.gen-me"


def part(name: str, headers: dict[str, str | int] | None = None) -> RequestPart:
    return RequestPart(name, 1234, f"m-{name}", "application/json", headers, name.encode())


def test_a_single_message_is_itself(delivery) -> None:
    made = delivery(b"{}", reply_to=ADDRESS)
    assert list(messages_of(made)) == [made]


def test_a_part_is_what_a_message_of_its_own_would_be(delivery) -> None:
    body = bundles.encode([part("a", {"traceparent": "00-a", "deadline": 9, "x-delivery-count": 0}), part("b")])
    made = delivery(
        body,
        routing_key="m.2",
        redelivered=True,
        content_type=BUNDLE,
        reply_to=ADDRESS,
        headers={"x-delivery-count": 7},
    )
    first, second = messages_of(made)
    assert (first.body, first.body_size, first.delivery_tag) == (b"a", 1, made.delivery_tag)
    assert (first.routing_key, first.redelivered) == ("m.2", True)
    properties = first.properties
    assert (properties.correlation_id, properties.message_id, properties.reply_to) == ("a", "m-a", ADDRESS)
    assert properties.content_type == "application/json"
    # What a caller writes into its headers changes neither its deadline nor the broker's own count.
    assert properties.headers == {"traceparent": "00-a", "deadline": 1234, "x-delivery-count": 7}
    assert second.properties.headers == {"deadline": 1234, "x-delivery-count": 7}
    assert second.properties.correlation_id == "b"


def test_the_dead_letter_of_a_part_is_a_message_of_its_own(delivery) -> None:
    made = delivery(bundles.encode([part("ä" * 60, {"n": -(2**63)}), part("b")]), content_type=BUNDLE, reply_to=ADDRESS)
    letter = copy_of(messages_of(made)[0], Answer(Outcome.DEAD, b"", "dead", "why", attempts=3), 0.0)
    assert letter.body == ("ä" * 60).encode()
    assert letter.properties.content_type == "application/json"
    encode_properties(letter.properties)


@pytest.mark.parametrize(
    "body", [b"garbage", bundles.encode([]), bundles.encode([part("a" * 256)]), bundles.encode([part("ä" * 200)])]
)
def test_a_bundle_that_cannot_be_read_stays_whole(delivery, body: bytes) -> None:
    made = delivery(body, content_type=BUNDLE)
    assert list(messages_of(made)) == [made]


def test_properties_that_cannot_be_read_stay_for_intake(delivery) -> None:
    made = delivery(b"{}", raw=b"\xff")
    assert list(messages_of(made)) == [made]
