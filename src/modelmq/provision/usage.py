"""Asks queues themselves, over AMQP, how many messages and consumers they have at this moment.

The management API tells what was counted up to five seconds ago, which is too old for whoever is about to delete. A
thin shell: one connection as the administrator, a question per queue. Changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from modelmq.amqp import Channel, Connection, connect
from modelmq.errors import BrokerError, ChannelClosed, ProvisionError
from modelmq.process.broker_access import connection_options
from modelmq.settings import Settings

_LONGEST_S = 60.0
_NOT_FOUND = 404


class Counts(NamedTuple):
    """Of one queue. Messages that somebody got and has not acknowledged are not in `ready`."""

    ready: int
    consumers: int


Count = Callable[[Sequence[str]], Mapping[str, Counts]]
"""The counts of the named queues. One that is not there counts as empty. Raises ProvisionError."""


def counted_through(settings: Settings) -> Count:
    """As the administrator that the settings name, in their virtual host."""
    broker = settings.broker
    as_admin = msgspec.structs.replace(
        broker,
        username=broker.admin_username,
        password=broker.admin_password,
        password_file=broker.admin_password_file,
    )
    options = connection_options(
        msgspec.structs.replace(settings, broker=as_admin), broker.admin_username, "modelmq topology"
    )

    def count(queues: Sequence[str]) -> Mapping[str, Counts]:
        async def ask() -> dict[str, Counts]:
            async with asyncio.timeout(_LONGEST_S):
                connection = await connect(options)
                try:
                    return await _counts(connection, queues)
                finally:
                    await connection.close()

        try:
            # A loop of its own leaves the thread's as it is, which others may have set.
            with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
                return runner.run(ask())
        except (BrokerError, TimeoutError) as error:
            why = error.message if isinstance(error, BrokerError) else f"no answer within {_LONGEST_S:g} s."
            raise ProvisionError(f"Whether queues are empty cannot be asked over AMQP (broker.hosts): {why}") from error

    return count


async def _counts(connection: Connection, queues: Sequence[str]) -> dict[str, Counts]:
    counts: dict[str, Counts] = {}
    channel: Channel | None = None
    for queue in queues:
        channel = channel or await connection.channel()
        try:
            counts[queue] = Counts(*await channel.count_queue(queue))
        except ChannelClosed as error:
            if error.reply_code != _NOT_FOUND:
                raise
            counts[queue], channel = Counts(0, 0), None
    return counts
