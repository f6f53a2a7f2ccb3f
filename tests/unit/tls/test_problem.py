from __future__ import annotations

import ssl

import pytest

from modelmq.tls import TlsOptions, problem


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("TLSV1_ALERT_UNKNOWN_CA", "does not know who signed the client certificate /c.pem"),
        ("SSLV3_ALERT_CERTIFICATE_EXPIRED", "refuses the client certificate /c.pem, which has expired"),
        ("TLSV13_ALERT_CERTIFICATE_REQUIRED", "asks for a client certificate; set cert_file and key_file"),
        ("SSLV3_ALERT_HANDSHAKE_FAILURE", "does not take the client certificate /c.pem; is it one for clients?"),
        ("TLSV1_ALERT_PROTOCOL_VERSION", "speaks no TLS of version 1.2 or later"),
        ("WRONG_VERSION_NUMBER", "does not speak TLS there"),
        ("SOMETHING_NEW", "cannot be reached through TLS: SOMETHING_NEW"),
    ],
)
def test_what_the_broker_says_in_words(reason: str, words: str) -> None:
    error = ssl.SSLError(1, "text")
    error.reason = reason
    assert words in problem(error, "h", TlsOptions(cert_file="/c.pem"))


def test_a_refusal_without_a_reason_from_who_showed_nothing() -> None:
    error = ssl.SSLError(1, "text")
    error.reason = "SSLV3_ALERT_HANDSHAKE_FAILURE"
    assert problem(error, "h", TlsOptions()).endswith("does it ask for a client certificate (see cert_file)?")
