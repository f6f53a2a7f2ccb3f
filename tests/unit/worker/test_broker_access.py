from __future__ import annotations

from pathlib import Path

import pytest

from modelmq.amqp import Credentials, Endpoint, TlsOptions
from modelmq.errors import ConfigError
from modelmq.settings import BrokerSettings, Settings, TopologySettings, WorkerSettings
from modelmq.topology import user_name
from modelmq.worker.broker_access import connection_options


def test_settings_become_connection_options() -> None:
    broker = BrokerSettings(
        hosts=("a:1", "[::1]:2"), vhost="v", tls=True, ca_file="ca", heartbeat_s=3.0, connect_timeout_s=2.0
    )
    options = connection_options(Settings(broker=broker), "w-1")
    tls = TlsOptions("ca", "", "")
    assert options.endpoints == (Endpoint("a", 1, tls), Endpoint("::1", 2, tls))
    assert (options.vhost, options.name, options.heartbeat_s, options.connect_timeout_s) == ("v", "w-1", 3.0, 2.0)


def test_without_tls_nothing_is_encrypted() -> None:
    assert connection_options(Settings(), "w").endpoints == (Endpoint("127.0.0.1", 5672, None),)


def test_a_worker_is_its_roles_user_unless_told_otherwise() -> None:
    settings = Settings(worker=WorkerSettings(role="vision"), topology=TopologySettings(environment="prod"))
    assert connection_options(settings, "w").credentials() == Credentials(user_name("worker", "prod", "vision"), "")
    named = Settings(broker=BrokerSettings(username="me", password="p"))
    assert connection_options(named, "w").credentials() == Credentials("me", "p")


def test_a_password_file_is_read_again_at_every_attempt(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("old\n")
    options = connection_options(Settings(broker=BrokerSettings(username="me", password_file=str(secret))), "w")
    assert options.credentials() == Credentials("me", "old")
    secret.write_text("new\n")
    assert options.credentials() == Credentials("me", "new")
    secret.unlink()
    with pytest.raises(ConfigError, match=r"broker.password_file: .*secret cannot be read"):
        options.credentials()
