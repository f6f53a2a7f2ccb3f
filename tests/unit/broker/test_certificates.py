from __future__ import annotations

import ssl
import stat
from pathlib import Path

import pytest
from cryptography import x509

from modelmq.broker import certificates
from modelmq.errors import NodeError


def test_a_certificate_for_this_machine(tmp_path: Path) -> None:
    folder = tmp_path / ("long " * 45) / ("x" * 200) / "tls"
    ca, certificate, key = folder / "ca.pem", folder / "server.pem", folder / "server.key"
    certificates.make(ca, certificate, key)
    assert sorted(path.name for path in folder.iterdir()) == ["ca.pem", "server.key", "server.pem"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    server = x509.load_pem_x509_certificate(certificate.read_bytes())
    server.verify_directly_issued_by(x509.load_pem_x509_certificate(ca.read_bytes()))
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1"]
    ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certificate, key)

    before = certificate.read_bytes()
    certificates.make(ca, certificate, key)
    assert certificate.read_bytes() == before


def test_openssl_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NodeError, match="is missing: install openssl"):
        certificates.make(tmp_path / "a", tmp_path / "b", tmp_path / "c")
