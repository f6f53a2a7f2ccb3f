from __future__ import annotations

import pytest

from modelmq.errors import REQUEST_ERRORS, InvalidRequest, Overloaded, Unavailable
from modelmq.gateway.statuses import STATUSES, refusal


def test_the_table_is_complete() -> None:
    assert STATUSES.keys() == REQUEST_ERRORS.keys()
    assert all(400 <= status < 600 for status in STATUSES.values())


def test_the_table_is_that_of_the_message_contract() -> None:
    assert STATUSES == {
        "invalid": 400, "not_found": 404, "too_large": 413, "unsupported": 415, "overloaded": 429, "failed": 500,
        "dead": 500, "unavailable": 503, "expired": 504, "cancelled": 499,
    }  # fmt: skip


@pytest.mark.parametrize("code", REQUEST_ERRORS)
def test_every_error_becomes_json(code: str) -> None:
    response = refusal(REQUEST_ERRORS[code]("It is so."), ("x-request-id", "r-1"))
    assert (response.status, response.body) == (STATUSES[code], b'{"error":"It is so."}')
    assert ("x-request-id", "r-1") in response.headers
    assert ("retry-after" in dict(response.headers)) == (response.status in (429, 503))


@pytest.mark.parametrize(("asked", "told"), [(None, "1"), (0.2, "1"), (1.0, "1"), (2.1, "3")])
def test_retry_after_is_whole_seconds(asked: float | None, told: str) -> None:
    for kind in (Overloaded, Unavailable):
        assert dict(refusal(kind("x", retry_after_s=asked)).headers)["retry-after"] == told
    assert refusal(InvalidRequest("x", retry_after_s=asked)).headers == ()
