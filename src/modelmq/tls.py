"""TLS towards a broker: certificate files become one context, and what goes wrong with it one clear sentence.

AMQP connections and the management API use the same; the broker's certificate and its name are always verified. Files
are read anew at every call, so that renewed ones are found. Opens no connection.
"""

from __future__ import annotations

import os
import ssl
import stat
from pathlib import Path
from typing import NoReturn

import msgspec

from modelmq.errors import ConfigError


class TlsOptions(msgspec.Struct, frozen=True):
    """PEM files. Without `ca_file` the system's authorities count; certificate and key are the client's own."""

    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""


_LONGEST_BYTES = 2**22
"""Read of a file; a bundle of all public authorities is a twentieth of it."""
_CERTIFICATE, _KEY = b"-----BEGIN CERTIFICATE-----", b"PRIVATE KEY-----"

_EXPIRED, _NOT_YET = 10, 9
_UNKNOWN_AUTHORITY = (2, 18, 19, 20, 21)
_WRONG_NAME = (62, 64)
"""X.509 verification results, as OpenSSL numbers them: name, address."""

_REASONS: tuple[tuple[str, str], ...] = (
    ("WRONG_VERSION_NUMBER", "does not speak TLS there; is it the port of its TLS listener?"),
    ("RECORD_LAYER_FAILURE", "does not speak TLS there; is it the port of its TLS listener?"),
    ("PROTOCOL_VERSION", "speaks no TLS of version 1.2 or later; switch that on there"),
    ("UNSUPPORTED_PROTOCOL", "speaks no TLS of version 1.2 or later; switch that on there"),
    ("ALERT_UNKNOWN_CA", "does not know who signed the client certificate {cert}; get one from an authority it knows"),
    ("ALERT_CERTIFICATE_EXPIRED", "refuses the client certificate {cert}, which has expired; renew it"),
    ("ALERT_CERTIFICATE_REVOKED", "refuses the client certificate {cert}, which was revoked; get a new one"),
    ("CERTIFICATE_REQUIRED", "asks for a client certificate; set cert_file and key_file"),
    ("ALERT_HANDSHAKE_FAILURE", "refuses the TLS handshake; does it ask for a client certificate (see cert_file)?"),
    ("ALERT_BAD_CERTIFICATE", "does not take the client certificate {cert}; its log says why"),
    ("ALERT_CERTIFICATE_UNKNOWN", "does not take the client certificate {cert}; its log says why"),
    ("ALERT_UNSUPPORTED_CERTIFICATE", "does not take the client certificate {cert}; is it one for clients?"),
)  # fmt: skip
"""By a part of OpenSSL's name for it; an alert is what the broker said."""


def client_context(tls: TlsOptions) -> ssl.SSLContext:
    """Raises ConfigError, naming the file and what to do."""
    if tls.ca_file:
        _require("ca_file", tls.ca_file, _CERTIFICATE, "a certificate authority's certificate")
    try:
        context = ssl.create_default_context(cafile=tls.ca_file or None)
    except ssl.SSLError as error:
        raise ConfigError(
            f"ca_file: {tls.ca_file} holds a damaged certificate ({error.reason or error}): copy it anew."
        ) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if tls.cert_file:
        _load_own(context, tls.cert_file, tls.key_file or tls.cert_file)
    return context


def problem(error: ssl.SSLError, host: str, tls: TlsOptions) -> str:
    """Why a connection to `host` failed, as the rest of a sentence that begins with whom it was made to."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _not_verified(error, host, tls)
    reason = error.reason or str(error)
    for part, words in _REASONS:
        if part in reason:
            return words.format(cert=tls.cert_file or "(none is set)")
    return f"cannot be reached through TLS: {reason}"


def _not_verified(error: ssl.SSLCertVerificationError, host: str, tls: TlsOptions) -> str:
    code = error.verify_code
    if code == _EXPIRED:
        return "has a certificate that has expired; renew it there, unless this machine's clock is wrong"
    if code == _NOT_YET:
        return "has a certificate that is not valid yet; is this machine's clock wrong?"
    if code in _WRONG_NAME:
        return f'has a certificate that is not for "{host}"; connect by a name that it holds, or renew it with this one'
    if code in _UNKNOWN_AUTHORITY:
        who = f"{tls.ca_file} does not hold" if tls.ca_file else "this system does not know"
        return f"has a certificate that is not trusted: {who} the authority that signed it; name that one's in ca_file"
    return f"has a certificate that is not trusted: {error.verify_message}"


def _load_own(context: ssl.SSLContext, cert_file: str, key_file: str) -> None:
    _require("cert_file", cert_file, _CERTIFICATE, "a certificate")
    _require("key_file", key_file, _KEY, "a private key", secret=True)

    def no_password() -> NoReturn:
        raise ConfigError(
            f"key_file: the key in {key_file} is locked with a password: give it without one, in a file mode 0600."
        )

    try:
        context.load_cert_chain(cert_file, key_file, password=no_password)
    except ssl.SSLError as error:
        if "MISMATCH" in (error.reason or ""):
            raise ConfigError(
                f"key_file: {key_file} is not the key of the certificate {cert_file}: give the key it was made with."
            ) from error
        raise ConfigError(
            f"cert_file, key_file: {cert_file} or {key_file} is damaged ({error.reason or error}): copy them anew."
        ) from error


def _require(setting: str, path: str, mark: bytes, what: str, *, secret: bool = False) -> None:
    try:
        with Path(path).open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(_LONGEST_BYTES)
    except OSError as error:
        raise ConfigError(f"{setting}: the file {path} cannot be read: {error.strerror}.") from error
    if mark not in content:
        raise ConfigError(f"{setting}: the file {path} does not hold {what} in PEM form: name the one that does.")
    if secret and mode & (stat.S_IROTH | stat.S_IWOTH):
        raise ConfigError(f"{setting}: everybody can read the file {path}; run chmod 600 {path}.")
