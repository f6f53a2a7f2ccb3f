from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from modelmq.errors import ConfigError
from modelmq.tls import TlsOptions, client_context
from tests.authority import Authority, Issued


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def own(authority: Authority) -> Issued:
    return authority.issue("me", client=True)


def options(authority: Authority, own: Issued, **files: str) -> TlsOptions:
    given = {"ca_file": str(authority.ca_file), "cert_file": own.cert_file, "key_file": own.key_file}
    return TlsOptions(**given | files)


def test_files_that_fit_verify_name_and_certificate(authority: Authority, own: Issued) -> None:
    for tls in (TlsOptions(), TlsOptions(str(authority.ca_file)), options(authority, own)):
        context = client_context(tls)
        assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
        assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert [each["subject"] for each in client_context(options(authority, own)).get_ca_certs()] == [
        ((("commonName", "Tests"),),)
    ]


def test_certificate_and_key_in_one_file(authority: Authority, own: Issued, tmp_path: Path) -> None:
    both = tmp_path / "both.pem"
    both.touch(0o600)
    both.write_bytes(Path(own.cert_file).read_bytes() + Path(own.key_file).read_bytes())
    client_context(TlsOptions(str(authority.ca_file), str(both)))


@pytest.mark.parametrize("which", ["ca_file", "cert_file", "key_file"])
def test_a_file_that_cannot_be_read(authority: Authority, own: Issued, tmp_path: Path, which: str) -> None:
    for path, why in ((tmp_path / "nowhere", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(ConfigError) as caught:
            client_context(options(authority, own, **{which: str(path)}))
        assert caught.value.message == f"{which}: the file {path} cannot be read: {why}."


@pytest.mark.parametrize(
    ("which", "what"),
    [
        ("ca_file", "a certificate authority's certificate"),
        ("cert_file", "a certificate"),
        ("key_file", "a private key"),
    ],
)
@pytest.mark.parametrize("content", [b"", b"hello", b"\x30\x82\x01\x0a\x00"])
def test_a_file_of_something_else(
    authority: Authority, own: Issued, tmp_path: Path, which: str, what: str, content: bytes
) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        client_context(options(authority, own, **{which: str(path)}))
    assert caught.value.message == f"{which}: the file {path} does not hold {what} in PEM form: name the one that does."


@pytest.mark.parametrize("which", ["ca_file", "cert_file", "key_file"])
def test_a_damaged_file(authority: Authority, own: Issued, tmp_path: Path, which: str) -> None:
    tls = options(authority, own)
    path = tmp_path / "damaged"
    path.touch(0o600)
    content = Path(getattr(tls, which)).read_bytes()
    path.write_bytes(content[:80] + content[120:])
    with pytest.raises(
        ConfigError, match=rf"^{which if which == 'ca_file' else 'cert_file, key_file'}: .*damaged.*anew"
    ):
        client_context(options(authority, own, **{which: str(path)}))


def test_a_key_of_another_certificate(authority: Authority, own: Issued, tmp_path: Path) -> None:
    other = tmp_path / "rsa.key"
    other.touch(0o600)
    other.write_bytes(as_pem(rsa.generate_private_key(65537, 2048), serialization.NoEncryption()))
    for key_file in (authority.issue("you", client=True).key_file, str(other)):
        with pytest.raises(ConfigError) as caught:
            client_context(options(authority, own, key_file=key_file))
        said = f"key_file: {key_file} is not the key of the certificate {own.cert_file}: give the key it was made with."
        assert caught.value.message == said


def test_a_locked_key_is_refused_and_nobody_is_asked_for_its_password(
    authority: Authority, own: Issued, tmp_path: Path
) -> None:
    key = serialization.load_pem_private_key(Path(own.key_file).read_bytes(), None)
    locked = tmp_path / "locked.key"
    locked.touch(0o600)
    locked.write_bytes(as_pem(key, serialization.BestAvailableEncryption(b"hunter2")))
    with pytest.raises(ConfigError, match=rf"^key_file: the key in {locked} is locked with a password: "):
        client_context(options(authority, own, key_file=str(locked)))


def test_a_key_that_everybody_can_read(authority: Authority, own: Issued) -> None:
    Path(own.key_file).chmod(0o644)
    with pytest.raises(ConfigError) as caught:
        client_context(options(authority, own))
    path = own.key_file
    assert caught.value.message == f"key_file: everybody can read the file {path}; run chmod 600 {path}."


def as_pem(key: object, lock: serialization.KeySerializationEncryption) -> bytes:
    content: bytes = key.private_bytes(  # type: ignore[attr-defined]
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, lock
    )
    return content
