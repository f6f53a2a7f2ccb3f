"""When a service that ended is started again, and when no more: a budget of ends within a window, with backoff.

Pure: ends, clock and jitter come in, a verdict goes out. Does not know what a service is.
"""

from __future__ import annotations

import msgspec


class RestartPolicy(msgspec.Struct, frozen=True):
    """At most `budget` ends within `window_s` seconds are answered with a restart."""

    budget: int = 5
    window_s: float = 60.0
    first_delay_s: float = 0.2
    longest_delay_s: float = 5.0


class Restart(msgspec.Struct, frozen=True):
    """Start again after `delay_s`; `ends` goes into the next verdict."""

    delay_s: float
    ends: tuple[float, ...]


class GiveUp(msgspec.Struct, frozen=True):
    """The budget is spent."""

    ends_counted: int
    window_s: float


def after_end(policy: RestartPolicy, ends: tuple[float, ...], now: float, jitter: float) -> Restart | GiveUp:
    """The verdict on an end at `now`. `ends` are those before, `jitter` is from 0 to 1.

    The delay doubles with each end in the window, and is between half and all of it, so that services that fell
    together do not rise together.
    """
    counted = (*(end for end in ends if now - end < policy.window_s), now)
    if len(counted) > policy.budget:
        return GiveUp(len(counted), policy.window_s)
    doubled = policy.first_delay_s * 2.0 ** min(len(counted) - 1, 30)
    return Restart(min(doubled, policy.longest_delay_s) * (0.5 + 0.5 * jitter), counted)
