"""What the checker must find: ModelMQ with a promise broken on purpose. Only the chaos runs load this file.

`python -m tests.chaos.mutations NAME` is a worker with the mutation; callers ask `of_caller`.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from modelmq import process
from modelmq.amqp import AckTracker, Settled
from modelmq.worker.confirmed import ConfirmedPublisher
from modelmq.worker.lane import LaneChannel

if TYPE_CHECKING:
    from tests.chaos.callers.caller import Caller

IN_WORKER = ("ack-first", "no-confirm")
IN_CALLER = ("no-dedup",)
NAMES = IN_WORKER + IN_CALLER


def ack_first() -> None:
    """A message is acked when it comes, and its reply written later."""
    deliver = LaneChannel._on_delivery

    def on_delivery(self: LaneChannel, delivery: Any) -> None:
        self._channel.ack(delivery.delivery_tag)
        deliver(self, delivery)

    def nothing_to_ack(self: AckTracker) -> list[tuple[int, bool]]:
        self._settled.clear()
        return []

    LaneChannel._on_delivery = on_delivery  # type: ignore[method-assign]
    AckTracker.take = nothing_to_ack  # type: ignore[method-assign]


def no_confirm() -> None:
    """What must be stored counts as stored as soon as it is sent."""
    publish = ConfirmedPublisher.publish

    def unconfirmed(
        self: ConfirmedPublisher, queue: str, exchange: str, key: str, properties: Any, body: bytes, then: Any
    ) -> None:
        publish(self, queue, exchange, key, properties, body, lambda settled: None)
        then(Settled.ACKED)

    ConfirmedPublisher.publish = unconfirmed  # type: ignore[method-assign]


def of_caller(name: str, caller: Caller) -> None:
    """`no-dedup`: the Python client hands on every reply to a request, not only the first."""
    if name != "no-dedup" or caller.plan.kind != "client":
        return
    from modelmq.client.replies import Replies  # noqa: PLC0415
    from tests.chaos.question import answer_of  # noqa: PLC0415

    conclude = Replies._conclude
    answered: dict[str, str] = {}

    def every(self: Replies, correlation_id: str | None, body: bytes, error: Any) -> None:
        known = self._pending._entries.get(correlation_id or "")
        if known is not None:
            answered[known.id] = known.payload.request.message_id
            conclude(self, correlation_id, body, error)
        elif correlation_id in answered:
            id_ = answer_of(body).partition(" ")[0]
            caller.ended(id_, "ok", answer_of(body))

    Replies._conclude = every  # type: ignore[method-assign]


if __name__ == "__main__":
    {"ack-first": ack_first, "no-confirm": no_confirm}[sys.argv[1]]()
    from modelmq.worker.__main__ import run

    sys.exit(process.main("worker", run))
