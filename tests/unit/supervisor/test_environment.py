from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelmq.settings import CATALOG, Settings, load
from modelmq.supervisor.environment import as_text, service_environ, told_to_others, value_of

_SAMPLES: dict[str, Any] = {
    "broker.hosts": ("a:1", "b:2"),
    "topology.roles": {"fast": ("digits", "iris"), "slow": ("big",)},
    "worker.reply_prefixes": ("a.", "b."),
    "broker.tls": True,
    "gateway.port": 8000,
    "gateway.default_timeout_s": 2.5,
}


def test_a_service_reads_back_what_the_supervisor_had() -> None:
    text = '[topology]\nroles = {fast = ["digits", "iris"], slow = ["big"]}\n[broker]\nhosts = ["a:1", "b:2"]'
    before = load(text, "f", {}, {"gateway.port": 9})
    environ = service_environ(before, {}, "ml-gateway", "/s/ml-gateway")
    after = load("", "f", environ, {})
    broker = msgspec.structs.replace(before.broker, username="ml-gateway", password_file="/s/ml-gateway")
    assert after == msgspec.structs.replace(before, broker=broker)


@pytest.mark.parametrize("key", sorted(_SAMPLES))
def test_every_kind_of_value_survives(key: str) -> None:
    text = as_text(_SAMPLES[key])
    assert value_of(load("", "f", {CATALOG[key].variable: text}, {}), key) == _SAMPLES[key]


@given(st.floats(0.001, 1e6))
def test_numbers_survive(number: float) -> None:
    variable = CATALOG["worker.drain_s"].variable
    assert load("", "f", {variable: as_text(number)}, {}).worker.drain_s == number


def test_no_password_and_no_administrator_reach_a_service() -> None:
    flags = {
        "broker.password": "hunter2",
        "broker.admin_username": "root",
        "broker.admin_password": "hunter3",
    }
    inherited = {"MODELMQ_BROKER_ADMIN_PASSWORD": "hunter3", "MODELMQ_READY_FD": "7", "PATH": "/bin"}
    environ = service_environ(load("", "f", {}, flags), inherited, "ml-gateway", "/s/g")
    assert not [value for value in environ.values() if "hunter" in value or value == "root"]
    assert "MODELMQ_READY_FD" not in environ
    assert environ["PATH"] == "/bin"
    assert environ["MODELMQ_BROKER_PASSWORD_FILE"] == "/s/g"


def test_the_settings_file_of_the_folder_is_not_read_again() -> None:
    environ = service_environ(Settings(), {"MODELMQ_CONFIG": "mine.toml"}, "u", "/s/u")
    assert environ["MODELMQ_CONFIG"] == "/dev/null"


def test_overrides_win() -> None:
    environ = service_environ(Settings(), {}, "u", "/s/u", worker__role="fast", worker__health_port=0)
    assert environ["MODELMQ_WORKER_ROLE"] == "fast"
    assert environ["MODELMQ_WORKER_HEALTH_PORT"] == "0"


def test_others_are_told_what_is_no_default_and_no_secret() -> None:
    flags = {"gateway.port": 8123, "topology.environment": "prod", "broker.hosts": "h:1", "broker.password": "hush"}
    told = told_to_others(load("", "", {}, flags))
    assert told == {
        "MODELMQ_GATEWAY_PORT": "8123",
        "MODELMQ_TOPOLOGY_ENVIRONMENT": "prod",
        "MODELMQ_BROKER_VHOST": "ml-prod",
    }
