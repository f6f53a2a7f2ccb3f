"""The name of a request in HTTP, in its message and in all logs: the caller's own where it can be one, else made.

Pure but for the random beginning that keeps two gateways' names apart.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable

HEADER = "X-Request-Id"
_ALLOWED = re.compile(r"[\x21-\x7e]{1,128}\Z")
_TRACE = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}\Z")


def maker() -> Callable[[], str]:
    """Gives a new name at each call; a counter behind a random word costs less than a random name each time."""
    beginning = f"{secrets.token_hex(6)}-"
    count = 0

    def make() -> str:
        nonlocal count
        count += 1
        return f"{beginning}{count:x}"

    return make


def usable(text: str | None) -> str | None:
    """The text, if it can be a name: 1 to 128 printable ASCII characters without spaces."""
    return text if text is not None and _ALLOWED.match(text) else None


def trace_headers(headers: dict[bytes, bytes]) -> dict[str, str] | None:
    """The W3C trace context to pass on, if there is a valid one."""
    raw = headers.get(b"traceparent")
    if raw is None:
        return None
    text = raw.decode("latin-1")
    return {"traceparent": text} if _TRACE.match(text) else None
