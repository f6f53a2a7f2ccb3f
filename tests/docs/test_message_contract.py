"""docs/message-contract.md names what the code sends and takes."""

from __future__ import annotations

import re

import pytest

from modelmq import messages
from modelmq.errors import REQUEST_ERRORS, request_error
from modelmq.gateway.statuses import refusal
from tests.docs.pages import ROOT

PAGE = (ROOT / "docs" / "message-contract.md").read_text("utf-8")
ROWS = dict(re.findall(r"^\| `(\w+)` \| (\d{3}) \|", PAGE, re.MULTILINE))


def test_every_code_a_caller_can_get_is_told() -> None:
    assert set(ROWS) == set(REQUEST_ERRORS) - {"cancelled"}


@pytest.mark.parametrize("code", sorted(ROWS))
def test_the_gateway_answers_with_the_status_told(code: str) -> None:
    assert refusal(request_error(code, "Because.")).status == int(ROWS[code])


def test_names_and_limits_are_those_of_the_code() -> None:
    told = (messages.MODEL_EXCHANGE, messages.DIRECT_REPLY_TO, messages.JSON, messages.DEADLINE_HEADER)
    for name in (*told, messages.STATUS_HEADER, "amq.gen-", f"{messages.BODY_LIMIT_BYTES:,}"):
        assert name in PAGE
