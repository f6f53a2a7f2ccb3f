"""Where the requests of one channel are answered: by what name the channel says it, and by what name all others do.

Beside `shard`, whose channel it is; `cancels` and `scouts` say it on channels of their own.
"""

from __future__ import annotations

import asyncio

from modelmq.amqp import Channel, Properties
from modelmq.amqp.wire import Returned
from modelmq.errors import BrokerError
from modelmq.messages import DIRECT_REPLY_TO, MODEL_EXCHANGE

NOWHERE = "."
"""A routing key that can be no model's."""


class ReplyAddress:
    """Of a channel that takes replies at `here`, the name of a queue or that of direct replies, as its requests say."""

    def __init__(self, channel: Channel, here: str) -> None:
        self._channel = channel
        self._everywhere = "" if here == DIRECT_REPLY_TO else here
        self._learning: asyncio.Task[str] | None = None

    async def everywhere(self) -> str:
        """What those of other channels must carry to be answered here, and what workers see. Raises BrokerError."""
        if self._everywhere:
            return self._everywhere
        if self._learning is None:
            self._learning = asyncio.create_task(self._learn())
        return await asyncio.shield(self._learning)

    async def _learn(self) -> str:
        """What the broker makes of the name of direct replies, which it does only on the channel that consumes them.

        A message that no queue takes comes back with it. Raises BrokerError when it does not.
        """
        settled, back = asyncio.Event(), list[Returned]()
        self._channel.on_returned = back.append
        try:
            properties = Properties(reply_to=DIRECT_REPLY_TO)
            self._channel.publish(
                MODEL_EXCHANGE, NOWHERE, properties, b"", mandatory=True, on_settled=lambda _: settled.set()
            )
            await settled.wait()
        finally:
            self._channel.on_returned = None
        for returned in back:
            if returned.routing_key == NOWHERE and returned.properties.reply_to:
                self._everywhere = returned.properties.reply_to
                return self._everywhere
        raise BrokerError("RabbitMQ did not tell the channel's reply address.")
