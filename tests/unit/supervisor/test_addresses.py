from __future__ import annotations

import pytest

from modelmq.settings import load
from modelmq.supervisor.addresses import http_url


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000"),
        ("0.0.0.0", "http://127.0.0.1:8000"),
        ("::", "http://[::1]:8000"),
        ("gateway.example", "http://gateway.example:8000"),
    ],
)
def test_the_url_is_one_a_client_here_can_use(host: str, url: str) -> None:
    assert http_url(load("", "f", {}, {"gateway.host": host})) == url
