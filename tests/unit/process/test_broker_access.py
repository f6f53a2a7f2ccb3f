from __future__ import annotations

from pathlib import Path

import pytest

from modelmq.amqp import Credentials, Endpoint, TlsOptions
from modelmq.errors import ConfigError
from modelmq.process import connection_options
from modelmq.process.broker_access import with_own_secret
from modelmq.settings import BrokerSettings, Settings


def test_the_settings_become_options() -> None:
    broker = BrokerSettings(hosts=("a:1", "[::1]:2"), vhost="v", password="p", heartbeat_s=3.0)
    options = connection_options(Settings(broker=broker), "ml-gateway", "g-1")
    assert options.endpoints == (Endpoint("a", 1), Endpoint("::1", 2))
    assert (options.vhost, options.name, options.heartbeat_s) == ("v", "g-1", 3.0)
    credentials = options.credentials()
    assert (credentials.username, credentials.password) == ("ml-gateway", "p")


def test_tls_verifies_with_the_files_of_the_settings() -> None:
    broker = BrokerSettings(tls=True, ca_file="ca", cert_file="cert", key_file="key")
    (endpoint,) = connection_options(Settings(broker=broker), "u", "n").endpoints
    assert endpoint.tls == TlsOptions("ca", "cert", "key")


def test_a_changed_secret_is_found_at_the_next_attempt(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.touch(mode=0o600)
    secret.write_text("first\n")
    options = connection_options(Settings(broker=BrokerSettings(username="me", password_file=str(secret))), "u", "n")
    assert options.credentials().password == "first"
    secret.write_text("second\n")
    assert options.credentials().password == "second"
    assert options.credentials().username == "me"
    secret.write_text("other\nthird\n")
    assert (options.credentials().username, options.credentials().password) == ("other", "third")
    secret.unlink()
    with pytest.raises(ConfigError, match="password_file"):
        options.credentials()


def test_a_service_started_by_hand_finds_its_own_secret(tmp_path: Path) -> None:
    found = with_own_secret(Settings(state_dir=str(tmp_path)), "ml-gateway").broker
    assert (found.username, found.password_file) == ("ml-gateway", str(tmp_path / "secrets" / "ml-gateway"))
    own = Settings(broker=BrokerSettings(username="me", password="p"))
    assert with_own_secret(own, "ml-gateway") is own


def test_a_login_by_certificate_needs_no_secret(tmp_path: Path) -> None:
    broker = BrokerSettings(auth="external", tls=True, cert_file="cert", key_file="key")
    found = with_own_secret(Settings(broker=broker, state_dir=str(tmp_path)), "ml-gateway")
    options = connection_options(found, "ml-gateway", "n")
    assert options.external
    assert options.credentials() == Credentials("", "")
