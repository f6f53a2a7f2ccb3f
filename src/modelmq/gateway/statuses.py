"""From the outcome of a request to an HTTP status and its headers: the one table. Pure."""

from __future__ import annotations

import math

from modelmq.errors import RequestError
from modelmq.http import HttpResponse
from modelmq.protocol import encode_error

STATUSES: dict[str, int] = {
    "invalid": 400,
    "not_found": 404,
    "too_large": 413,
    "unsupported": 415,
    "overloaded": 429,
    "failed": 500,
    "dead": 500,
    "unavailable": 503,
    "expired": 504,
    # Nobody waits for this answer: it is what logs of HTTP proxies call a client that went away.
    "cancelled": 499,
}
"""Every code of the message contract. Success is always 200: clients take no other."""

_WITH_RETRY_AFTER = frozenset({429, 503})
_RETRY_AFTER_S = 1.0


def refusal(error: RequestError, *headers: tuple[str, str]) -> HttpResponse:
    """`{"error": …}` with the status of the error's code, and when to try again where that may help."""
    status = STATUSES[error.code]
    if status in _WITH_RETRY_AFTER:
        seconds = math.ceil(error.retry_after_s or _RETRY_AFTER_S)
        headers = (*headers, ("retry-after", str(max(1, seconds))))
    return HttpResponse(status, encode_error(error.message), headers=headers)
