"""When a channel that a queue refuses is to be replaced, because the refusals may be the channel's fault.

RabbitMQ 3.10 asks the leader it remembers when a channel first publishes to a quorum queue. Where that was on a node
just lost, it asks it for ever, and so nacks all that the channel has for this queue, long after another leader takes
messages (`rabbit_fifo_client:enqueue`; 4.3 no longer does). A new channel begins with the leader of its day. A queue
that really is full confirms something now and then; where it does not, channels are replaced less and less often.
Pure; `now_s` of one monotonic clock.
"""

from __future__ import annotations

PAUSE_S = (1.0, 30.0)
"""First and longest time that a queue refuses everything before another channel is tried."""


class Refusals:
    """Of one channel at a time, by queue: since when it has taken nothing. Only those that refuse are kept."""

    def __init__(self) -> None:
        self._refusing: dict[str, tuple[float, float]] = {}
        """When it first and last refused; who refused last stands last."""
        self._pause_s = PAUSE_S[0]

    def taken(self, queue: str) -> None:
        """It has confirmed something."""
        if self._refusing and self._refusing.pop(queue, None) is not None:
            self._pause_s = PAUSE_S[0]

    def refused(self, queue: str, now_s: float) -> bool:
        """It has not taken a message: whether another channel is due. Says so once in a while."""
        self._forget(now_s)
        since_s, _ = self._refusing.pop(queue, (now_s, now_s))
        self._refusing[queue] = since_s, now_s
        if now_s - since_s < self._pause_s:
            return False
        self._refusing.clear()
        self._pause_s = min(2 * self._pause_s, PAUSE_S[1])
        return True

    def replaced(self) -> None:
        """There is another channel, of which nothing is known yet."""
        self._refusing.clear()

    def _forget(self, now_s: float) -> None:
        """What was refused long ago: what its queue would have taken since is not known."""
        while self._refusing:
            queue, (_, last_s) = next(iter(self._refusing.items()))
            if now_s - last_s <= PAUSE_S[1]:
                return
            del self._refusing[queue]
