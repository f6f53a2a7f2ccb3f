from __future__ import annotations

import ssl

import httpx
import pytest

from modelmq.broker.management_errors import answer_error, transport_error, unreadable_answer
from modelmq.tls import TlsOptions

URL = "http://broker:15672"


def all_kinds(kind: type[Exception]) -> list[type[Exception]]:
    return [kind, *(each for child in kind.__subclasses__() for each in all_kinds(child))]


# Those of httpx that no call of ours can raise: a status that is asked to raise, and a response read by halves.
UNUSED = (httpx.HTTPStatusError,)


@pytest.mark.parametrize("kind", [each for each in all_kinds(httpx.RequestError) if each not in UNUSED])
def test_every_way_httpx_fails_has_a_sentence(kind: type[Exception]) -> None:
    if kind in (httpx.RequestError, httpx.TransportError):
        assert (
            transport_error(URL, kind("x"), TlsOptions()).message
            == f"The management API at {URL} failed: {kind.__name__}."
        )
    else:
        assert "failed:" not in transport_error(URL, kind("x"), TlsOptions()).message


def test_a_certificate_that_is_not_trusted_is_told_from_a_lost_connection() -> None:
    error = httpx.ConnectError("x")
    error.__cause__ = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.__cause__.verify_message = "self-signed certificate"
    said = transport_error("https://broker", error, TlsOptions()).message
    assert said == (
        "The management API at https://broker has a certificate that is not trusted: self-signed certificate."
    )


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (401, b'{"reason":"Login failed"}', 'the user "me" or its password is wrong; see broker.admin_username'),
        (401, b'{"reason":"Not administrator user"}', 'the user "me" lacks the tag "administrator"'),
        (401, b'{"reason":"Access refused."}', "may not do that in this virtual host: Access refused."),
        (401, b'{"reason":"User can only log in via localhost"}', "only on the machine of the broker"),
        (401, b"<html>", "or its password is wrong"),
        (400, b'{"error":"bad_request","reason":"two\\nlines"}', "refused to do it: HTTP 400, two lines."),
        (404, b'{"error":"Object Not Found"}', "HTTP 404, Object Not Found."),
        (404, b"", "There is no management API at"),
        (500, b'{"reason":"boom"}', "failed to do it: HTTP 500 (boom); see the broker's log."),
        (418, b"", "HTTP 418, no reason given."),
    ],
)
def test_answers_that_are_none(status: int, body: bytes, words: str) -> None:
    said = answer_error(URL, "me", "do it", status, body).message
    assert words in said
    assert "\n" not in said


def test_long_reasons_are_cut() -> None:
    assert len(answer_error(URL, "me", "do it", 400, b'{"reason":"' + b"x" * 5000 + b'"}').message) < 400


def test_an_answer_that_cannot_be_read() -> None:
    assert unreadable_answer(URL, "do it").message.endswith("cannot be read; is this really RabbitMQ's management API?")
