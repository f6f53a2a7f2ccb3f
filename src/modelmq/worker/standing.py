"""Keeps something open on a connection: tried again with growing delays as long as the connection lives.

The broker confines mistakes such as an absent queue to one channel; so do we. Used for lane consumers, the control
queue and the confirm channel.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from modelmq.errors import BrokerError, ConnectionLost

FIRST_DELAY_S = 0.5
MAX_DELAY_S = 10.0


async def keep(
    attempt: Callable[[], Awaitable[None]], refused: Callable[[BrokerError, float], None], stopping: asyncio.Event
) -> None:
    """Call `attempt` again whenever it returns, until `stopping` or until the connection is lost.

    An attempt opens a channel and returns when that ended. `refused` is told each refusal and the delay that follows.
    """
    delay_s = FIRST_DELAY_S
    while not stopping.is_set():
        try:
            await attempt()
            delay_s = FIRST_DELAY_S
        except ConnectionLost:
            return
        except BrokerError as error:
            refused(error, delay_s)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), delay_s)
            delay_s = min(MAX_DELAY_S, delay_s * 2)
