"""One emit for many subscribers, none of which can break the service that emits.

Stands between a service and its logs and metrics. Does not know what an event means.
"""

from __future__ import annotations

import contextlib
import sys
import traceback

from modelmq.events import Emit, Event


def fan_out(*subscribers: Emit) -> Emit:
    """Every event to every subscriber, in order. One that raises is skipped; its first error goes to standard error."""
    broken: set[int] = set()

    def emit(event: Event) -> None:
        for index, subscriber in enumerate(subscribers):
            try:
                subscriber(event)
            except Exception:
                # Told once: a full disk would otherwise write a traceback per request.
                if index not in broken:
                    broken.add(index)
                    _tell()

    return emit


def _tell() -> None:
    with contextlib.suppress(Exception):
        traceback.print_exc(file=sys.stderr)
