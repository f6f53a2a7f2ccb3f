"""What went wrong between us and a broker's TLS listener, as one clear sentence. Pure.

Errors are those of Python's ssl, of which only OpenSSL's numbers and names are read.
"""

from __future__ import annotations

from modelmq.tls.options import TlsOptions

_EXPIRED, _NOT_YET = 10, 9
_UNKNOWN_AUTHORITY = (2, 18, 19, 20, 21)
_WRONG_NAME = (62, 64)
"""X.509 verification results, as OpenSSL numbers them: name, address."""

_REFUSED = "ALERT_HANDSHAKE_FAILURE"
_REFUSED_NAMELESS = "refuses the TLS handshake; does it ask for a client certificate (see cert_file)?"
_REASONS: tuple[tuple[str, str], ...] = (
    ("WRONG_VERSION_NUMBER", "does not speak TLS there; is it the port of its TLS listener?"),
    ("RECORD_LAYER_FAILURE", "does not speak TLS there; is it the port of its TLS listener?"),
    ("PROTOCOL_VERSION", "speaks no TLS of version 1.2 or later; switch that on there"),
    ("UNSUPPORTED_PROTOCOL", "speaks no TLS of version 1.2 or later; switch that on there"),
    ("ALERT_UNKNOWN_CA", "does not know who signed the client certificate {cert}; get one from an authority it knows"),
    ("ALERT_CERTIFICATE_EXPIRED", "refuses the client certificate {cert}, which has expired; renew it"),
    ("ALERT_CERTIFICATE_REVOKED", "refuses the client certificate {cert}, which was revoked; get a new one"),
    ("CERTIFICATE_REQUIRED", "asks for a client certificate; set cert_file and key_file"),
    (_REFUSED, "does not take the client certificate {cert}; is it one for clients?"),
    ("ALERT_BAD_CERTIFICATE", "does not take the client certificate {cert}; its log says why"),
    ("ALERT_CERTIFICATE_UNKNOWN", "does not take the client certificate {cert}; its log says why"),
    ("ALERT_UNSUPPORTED_CERTIFICATE", "does not take the client certificate {cert}; is it one for clients?"),
)  # fmt: skip
"""By a part of OpenSSL's name for it; an alert is what the broker said."""


def problem(error: Exception, host: str, tls: TlsOptions) -> str:
    """Why a connection to `host` failed, as the rest of a sentence that begins with whom it was made to."""
    if hasattr(error, "verify_message"):
        return _not_verified(error, host, tls)
    reason = getattr(error, "reason", "") or str(error)
    if _REFUSED in reason and not tls.cert_file:
        return _REFUSED_NAMELESS
    for part, words in _REASONS:
        if part in reason:
            return words.format(cert=tls.cert_file or "(none is set)")
    return f"cannot be reached through TLS: {reason}"


def _not_verified(error: Exception, host: str, tls: TlsOptions) -> str:
    code = getattr(error, "verify_code", 0)
    if code == _EXPIRED:
        return "has a certificate that has expired; renew it there, unless this machine's clock is wrong"
    if code == _NOT_YET:
        return "has a certificate that is not valid yet; is this machine's clock wrong?"
    if code in _WRONG_NAME:
        return f'has a certificate that is not for "{host}"; connect by a name that it holds, or renew it with this one'
    if code in _UNKNOWN_AUTHORITY:
        who = f"{tls.ca_file} does not hold" if tls.ca_file else "this system does not know"
        return f"has a certificate that is not trusted: {who} the authority that signed it; name that one's in ca_file"
    return f"has a certificate that is not trusted: {getattr(error, 'verify_message', '') or error}"
