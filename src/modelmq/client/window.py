"""How many messages one queue may owe a confirm for: fewer than make the broker stop reading the whole connection.

RabbitMQ lets a channel have 32 unconfirmed messages to a quorum queue, then reads nothing more from its connection
until some are confirmed: a queue without a leader would stop all models of the connection. So what is over the limit
waits, and when nothing was confirmed for a while, new requests for that queue are refused at once, but for one now and
then to see whether it is back. Pure; `now_s` of one monotonic clock.
"""

from __future__ import annotations

import msgspec

LIMIT = 24
"""Below the broker's 32 (`quorum_commands_soft_limit`)."""


class _Window(msgspec.Struct):
    owed: int
    since_s: float
    """When the queue last confirmed something, or began to owe."""
    tried_s: float
    """When something was last sent to see whether it confirms again."""


class Windows:
    """By queue, under a name that all who publish to it agree on. Only those that owe something are kept."""

    def __init__(self, limit: int | None, patience_s: float) -> None:
        """`limit` None: as many as there are."""
        self._limit = limit
        self._patience_s = patience_s
        self._owing: dict[str, _Window] = {}

    def __len__(self) -> int:
        return len(self._owing)

    def open(self, queue: str) -> bool:
        """Whether another message may be sent now."""
        if self._limit is None:
            return True
        window = self._owing.get(queue)
        return window is None or window.owed < self._limit

    def refuses(self, queue: str, now_s: float) -> bool:
        """Whether a new request would wait in vain. Says no once in a while, for a message to be sent as a trial."""
        window = self._owing.get(queue) if self._limit is not None else None
        if window is None or now_s - window.since_s < self._patience_s:
            return False
        if self.open(queue) and now_s - window.tried_s >= self._patience_s:
            window.tried_s = now_s
            return False
        return True

    def sent(self, queue: str, now_s: float) -> None:
        """One message more."""
        if self._limit is None:
            return
        window = self._owing.get(queue)
        if window is None:
            self._owing[queue] = _Window(1, now_s, now_s)
        else:
            window.owed += 1

    def settled(self, queue: str, now_s: float) -> None:
        """One message less: confirmed, refused, returned, or lost with its channel."""
        window = self._owing.get(queue)
        if window is None:
            return
        if window.owed <= 1:
            del self._owing[queue]
        else:
            window.owed -= 1
            window.since_s = now_s
