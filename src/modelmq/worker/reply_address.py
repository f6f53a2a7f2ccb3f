"""Which addresses a worker answers to. Anything else could inject messages into somebody's queue.

Asked by intake before any work is done and by control before it answers a gateway. Pure.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from functools import lru_cache

import msgspec

from modelmq.errors import InvalidRequest
from modelmq.messages import DIRECT_REPLY_TO, REPLY_EXCHANGE, REPLY_PATHS, ReplyMode

_LARGEST_ID, _LARGEST_SERIAL = 2**15 - 1, 2**13 - 1
"""Beyond these some versions of Erlang refuse to read a process."""
_DIRECT_ADDRESS = re.compile(re.escape(DIRECT_REPLY_TO) + r"\.[A-Za-z0-9+/=_-]+\.[A-Za-z0-9+/=_-]+\Z")


_LONGEST = 255
_ADVICE: Mapping[ReplyMode, str] = {
    "direct": "use direct reply-to, a server-named queue, or a prefix listed in worker.reply_prefixes",
    "queue": f"here topology.reply_mode is queue: use a server-named queue bound to {REPLY_EXCHANGE} by its name, "
    "or a prefix listed in worker.reply_prefixes",
}


class ReplyRules(msgspec.Struct, frozen=True):
    """Which addresses are answered, and how: published to `exchange` with the address as the key."""

    mode: ReplyMode
    exchange: str
    passing: tuple[str, ...]
    """Prefixes of addresses that end with who asked, and so keep nothing."""
    honoured: tuple[str, ...]

    def checked(self, reply_to: str | None) -> str:
        """The address; empty when nobody is to be answered. Raises InvalidRequest for one that may not be answered."""
        return _checked(self, reply_to) if reply_to else ""

    def may_be_durable(self, reply_to: str) -> bool:
        """A queue of the caller's own naming may keep its messages; other reply addresses never do."""
        return not reply_to.startswith(self.passing)


@lru_cache(maxsize=1024)  # few ask, and each often
def _checked(rules: ReplyRules, reply_to: str) -> str:
    if not reply_to.startswith(rules.honoured) or len(reply_to.encode("utf-8", "surrogateescape")) > _LONGEST:
        raise InvalidRequest(f"The reply_to names a queue that workers may not answer to; {_ADVICE[rules.mode]}.")
    if reply_to.startswith(DIRECT_REPLY_TO) and not _DIRECT_ADDRESS.match(reply_to):
        # RabbitMQ 3.10 closes the connection of whoever publishes to a forged direct address.
        raise InvalidRequest("The reply_to is not a direct reply-to address that RabbitMQ made.")
    return reply_to


def rules_of(mode: ReplyMode, extra_prefixes: tuple[str, ...] = ()) -> ReplyRules:
    """Those of an installation; `extra_prefixes` are honoured beside the mode's own."""
    path = REPLY_PATHS[mode]
    return ReplyRules(mode, path.exchange, path.prefixes, path.prefixes + extra_prefixes)


@lru_cache(maxsize=4096)
def risk(reply_to: str) -> str:
    """What a first reply has to prove before others may rely on it; empty for an address that can do no harm.

    RabbitMQ up to 4.2 closes the connection of whoever replies to a direct address that names a node it does not
    know. So an address is as good as its node, if its form is the one that RabbitMQ makes, else as good as itself.
    """
    if not reply_to.startswith(DIRECT_REPLY_TO):
        return ""
    return _node(reply_to.split(".")[-2]) or reply_to


def _node(process: str) -> str:
    """The node in a process as Erlang writes it: \x83 X, a name with its length, id, serial and creation."""
    try:
        raw = base64.b64decode(process, validate=True)
    except binascii.Error:
        return ""
    if raw[:3] == b"\x83Xv":
        at, size = 5, int.from_bytes(raw[3:5], "big")
    elif raw[:3] == b"\x83Xw":
        at, size = 4, int.from_bytes(raw[3:4], "big")
    else:
        return ""
    name, numbers = raw[at : at + size], raw[at + size :]
    number, serial = int.from_bytes(numbers[:4], "big"), int.from_bytes(numbers[4:8], "big")
    if len(numbers) != 12 or number > _LARGEST_ID or serial > _LARGEST_SERIAL:
        return ""
    return name.decode("latin-1")
