"""ModelMQ's side: the Requester that the gateway uses, against an echo over the same AMQP client."""

from __future__ import annotations

from benchmarks.clients.bare_client import asking, echoing

__all__ = ["asking", "echoing"]
