"""ModelMQ's Requester with a message for every request, as it asks workers that take no bundles."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

from benchmarks.clients import modelmq_client
from benchmarks.clients.bare_client import echoing
from benchmarks.clients.drive import Address, Ask

__all__ = ["asking", "echoing"]


def asking(address: Address) -> AbstractAsyncContextManager[Ask]:
    """The same, without bundles."""
    return modelmq_client.asking(address, bundle_limit=1)
