"""Keeps something open on a connection: tried again with growing delays as long as the connection lives.

The broker confines mistakes such as an absent queue to one channel; so do we. Used for lane consumers, the control
queue and the confirm channels.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable

from modelmq.errors import BrokerError, ConnectionLost

FIRST_DELAY_S = 0.5
MAX_DELAY_S = 10.0
HELD_S = 5.0
"""What was open for so long, was: its end is followed by the next attempt at once."""


async def keep(
    attempt: Callable[[], Awaitable[None]], refused: Callable[[BrokerError, float], None], stopping: asyncio.Event
) -> None:
    """Call `attempt` again whenever it returns, until `stopping` or until the connection is lost.

    An attempt opens a channel and returns when that ended. `refused` is told each refusal and the delay that follows.
    What ends soon after it was opened is followed by growing delays as well: whatever ends it would do so again.
    """
    loop = asyncio.get_running_loop()
    failures = 0
    while not stopping.is_set():
        began = loop.time()
        try:
            await attempt()
        except ConnectionLost:
            return
        except BrokerError as error:
            delay_s = delay_after_s(failures, random.random())  # noqa: S311 - no secret
            failures += 1
            refused(error, delay_s)
        else:
            failures = 0 if loop.time() - began >= HELD_S else failures + 1
            # The first end may have come by chance, as when a queue's leader moves: nobody should wait for that.
            delay_s = delay_after_s(failures - 2, random.random()) if failures > 1 else 0.0  # noqa: S311 - no secret
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stopping.wait(), delay_s)


def delay_after_s(failures: int, chance: float) -> float:
    """How long to wait after so many failures in a row; `chance` (0 to 1) spreads workers over half of it."""
    return float(min(MAX_DELAY_S, FIRST_DELAY_S * 2.0 ** min(failures, 16)) * (0.5 + chance / 2))
