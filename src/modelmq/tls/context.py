"""Certificate files become the context that connections are made with.

They are read anew at every call, so that renewed ones are found; each way they can be wrong is one sentence that names
the setting, the file and what to do. Opens no connection.
"""

from __future__ import annotations

import os
import ssl
import stat
from pathlib import Path
from typing import NoReturn

from modelmq.errors import ConfigError
from modelmq.tls.options import TlsOptions

_LONGEST_BYTES = 2**22
"""Read of a file; a bundle of all public authorities is a twentieth of it."""
_CERTIFICATE, _KEY = b"-----BEGIN CERTIFICATE-----", b"PRIVATE KEY-----"


_MISFITS = ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED")
"""OpenSSL's names for a key that is not the certificate's; the last where it is of another kind."""


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


def trusting_nobody() -> ssl.SSLContext:
    """For a client of addresses without TLS: one would else read all of the machine's authorities, for 30 ms."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


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
        if error.reason in _MISFITS:
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
