from __future__ import annotations

import msgspec
import pytest

from modelmq.amqp.options import Credentials, Endpoint, TlsOptions, options_from_url
from modelmq.errors import ConfigError


def endpoints(url: str) -> list[tuple[str, int, bool]]:
    return [(each.host, each.port, each.tls is not None) for each in options_from_url(url).endpoints]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("amqp://u:p@h", [("h", 5672, False)]),
        ("amqp://u:p@h:1", [("h", 1, False)]),
        ("amqp://u:p@h:", [("h", 5672, False)]),
        ("amqp://u:p@h1:1,h2,h3:65535/v", [("h1", 1, False), ("h2", 5672, False), ("h3", 65535, False)]),
        ("amqps://u:p@h", [("h", 5671, True)]),
        ("amqps://u:p@h1,h2:99", [("h1", 5671, True), ("h2", 99, True)]),
        ("amqp://u:p@[::1]:7", [("::1", 7, False)]),
        ("amqp://u:p@[::1],h,[::2]:3", [("::1", 5672, False), ("h", 5672, False), ("::2", 3, False)]),
    ],
)
def test_hosts_and_ports(url: str, expected: list[tuple[str, int, bool]]) -> None:
    assert endpoints(url) == expected


@pytest.mark.parametrize(
    ("path", "vhost"),
    [("", "/"), ("/", "/"), ("/dev", "dev"), ("/%2F", "/"), ("/a%2Fb", "a/b"), ("/a/b", "a/b"), ("/gr%C3%BC", "grü")],
)
def test_virtual_hosts(path: str, vhost: str) -> None:
    assert options_from_url("amqp://u:p@h" + path).vhost == vhost


@pytest.mark.parametrize(
    ("login", "username", "password"),
    [
        ("u:p", "u", "p"),
        ("u:p%40%3A%2F", "u", "p@:/"),
        ("u:a:b", "u", "a:b"),
        ("u:a@b", "u", "a@b"),
        ("u:a[b", "u", "a[b"),
        ("u", "u", ""),
    ],
)
def test_logins(login: str, username: str, password: str) -> None:
    assert options_from_url(f"amqp://{login}@h").credentials() == Credentials(username, password)


def test_name_and_certificate_authority_are_kept() -> None:
    options = options_from_url("amqps://u:p@h", name="gateway", tls=TlsOptions("ca.pem"))
    assert options.name == "gateway"
    assert options.endpoints[0].tls == TlsOptions("ca.pem")


@pytest.mark.parametrize(
    "url",
    ["", "h", "http://h", "amqp://", "amqp://u:p@", "amqp://u:p@h:0", "amqp://u:p@h:65536",
     "amqp://u:p@h:x", "amqp://u:p@h,", "amqp://u:p@,h", "amqp://u:p@h:-1", "amqp://u:p@h:1:2", "amqp://u:p@[::1",
     "amqp://u:p@[::1]x", "amqp://u:p@h/v?heartbeat=5", "amqp://u:p@h/v#x", "amqp://u:p@h:²",
     "amqp://u:p@h/" + "v" * 128],
)  # fmt: skip
def test_what_is_no_amqp_url_is_a_config_error(url: str) -> None:
    with pytest.raises(ConfigError):
        options_from_url(url)


@pytest.mark.parametrize("url", ["amqp://user:hunter2@h:x", "amqp://user:hunter2@[h", "amqp://user:hunter2@h?x=1"])
def test_an_error_does_not_show_the_password(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        options_from_url(url)
    assert "hunter2" not in str(caught.value)


def test_a_repr_does_not_show_the_password() -> None:
    assert "hunter2" not in repr(Credentials("u", "hunter2"))
    assert "hunter2" not in repr(options_from_url("amqp://u:hunter2@h"))


def test_an_endpoint_reads_as_it_is_written() -> None:
    assert str(Endpoint("h", 1)) == "h:1"
    assert str(Endpoint("::1", 1)) == "[::1]:1"


def test_a_url_without_a_user_logs_in_by_the_client_certificate() -> None:
    own = TlsOptions("ca.pem", "c.pem", "k.pem")
    assert options_from_url("amqps://h/v", tls=own).external
    assert not options_from_url("amqps://u:p@h/v", tls=own).external
    assert not options_from_url("amqps://h/v", tls=TlsOptions("ca.pem")).external
    assert not options_from_url("amqp://h/v", tls=own).external


def test_a_login_by_certificate_needs_one() -> None:
    options = options_from_url("amqps://h/v", tls=TlsOptions("ca.pem"))
    with pytest.raises(ConfigError, match="needs cert_file and key_file"):
        msgspec.structs.replace(options, external=True)
