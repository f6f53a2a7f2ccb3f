"""Deliveries as the broker client makes them, without a broker."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from modelmq.amqp import Delivery, Properties
from modelmq.amqp.properties import encode_properties

MakeDelivery = Callable[..., Delivery]


@pytest.fixture
def delivery() -> MakeDelivery:
    """Makes one; `raw` are the bytes of properties that no encoder of ours would write."""

    def make(
        body: bytes = b"{}",
        *,
        routing_key: str = "m",
        redelivered: bool = False,
        raw: bytes | None = None,
        **properties: object,
    ) -> Delivery:
        made = Delivery(1, "tag", 1, redelivered, "ml-model-exchange", routing_key)
        given = Properties(**properties)  # type: ignore[arg-type]
        made._filled(encode_properties(given) if raw is None else raw, body, len(body))
        return made

    return make
