"""A certificate authority and a server certificate for a private node's TLS listener, made with the `openssl` command.

They are for this machine only: the certificate names localhost and the loopback addresses, and the authority's key is
thrown away as soon as it has signed. Knows nothing of RabbitMQ.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from modelmq.errors import NodeError

_DAYS = "3650"
_TIMEOUT_S = 30.0
_CONFIG = """
[req]
distinguished_name = name
prompt = no
[name]
CN = ModelMQ private node
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[server]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectAltName = DNS:localhost, IP:127.0.0.1, IP:::1
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
"""
"""Our own, so that the machine's openssl.cnf adds nothing."""


def make(ca: Path, certificate: Path, key: Path) -> None:
    """Writes the authority's certificate, the server's and its key, all 0600, unless they are there.

    Raises NodeError.
    """
    if ca.exists() and certificate.exists() and key.exists():
        return
    openssl = shutil.which("openssl")
    if openssl is None:
        raise NodeError("The command openssl makes the TLS listener's certificate and is missing: install openssl.")
    ca.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=ca.parent) as scratch:
        draft = Path(scratch)
        _sign(openssl, draft)
        for made, place in ((draft / "ca.pem", ca), (draft / "key.pem", key), (draft / "server.pem", certificate)):
            made.chmod(0o600)
            made.replace(place)


def _sign(openssl: str, draft: Path) -> None:
    # Names without a folder: openssl cuts long paths.
    config, ca, ca_key, key, request = "openssl.cnf", "ca.pem", "ca.key", "key.pem", "server.csr"
    (draft / config).write_text(_CONFIG)
    new = [openssl, "req", "-config", config, "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    _run(draft, [*new, "-x509", "-days", _DAYS, "-extensions", "authority", "-keyout", ca_key, "-out", ca])
    _run(draft, [*new, "-subj", "/CN=localhost", "-keyout", key, "-out", request])
    sign = [openssl, "x509", "-req", "-in", request, "-CA", ca, "-CAkey", ca_key, "-CAcreateserial", "-days", _DAYS]
    _run(draft, [*sign, "-extfile", config, "-extensions", "server", "-out", "server.pem"])


def _run(folder: Path, command: list[str]) -> None:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NodeError(f"openssl could not make the TLS listener's certificate: {error}.") from error
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise NodeError(f"openssl could not make the TLS listener's certificate: {reason}.")
