"""Which addresses a worker answers to. Anything else could inject messages into somebody's queue.

Asked by intake before any work is done and by control before it answers a gateway. Pure.
"""

from __future__ import annotations

import re

from modelmq.errors import InvalidRequest
from modelmq.messages import DIRECT_REPLY_TO, REPLY_PREFIXES, reply_address_allowed

_DIRECT_ADDRESS = re.compile(re.escape(DIRECT_REPLY_TO) + r"\.[A-Za-z0-9+/=_-]+\.[A-Za-z0-9+/=_-]+\Z")


def checked(reply_to: str | None, prefixes: tuple[str, ...] = ()) -> str:
    """The address; empty when nobody is to be answered. Raises InvalidRequest for one that may not be answered."""
    if not reply_to:
        return ""
    if not reply_address_allowed(reply_to, prefixes):
        raise InvalidRequest(
            "The reply_to names a queue that workers may not answer to; use direct reply-to, a server-named queue, "
            "or a prefix listed in worker.reply_prefixes."
        )
    if reply_to.startswith(DIRECT_REPLY_TO) and not _DIRECT_ADDRESS.match(reply_to):
        # RabbitMQ 3.10 closes the connection of whoever publishes to a forged direct address.
        raise InvalidRequest("The reply_to is not a direct reply-to address that RabbitMQ made.")
    return reply_to


def may_be_durable(reply_to: str) -> bool:
    """A queue of the caller's own naming may keep its messages; the broker's own reply addresses never do."""
    return not reply_to.startswith(REPLY_PREFIXES)
