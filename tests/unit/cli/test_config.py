from __future__ import annotations

from pathlib import Path

import pytest

from modelmq.cli import config
from modelmq.errors import ConfigError
from modelmq.supervisor.state import StateDir


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_without_anything_there_are_defaults() -> None:
    found = config.find(None, {}, {})
    assert found.settings.gateway.port == 8000
    assert found.given == frozenset()


def test_flags_win_over_environment_over_file(here: Path) -> None:
    (here / "modelmq.toml").write_text('models_dir = "f"\n[gateway]\nport = 1\nhost = "10.0.0.1"\n')
    found = config.find(None, {"MODELMQ_GATEWAY_PORT": "2", "MODELMQ_MODELS_DIR": "e"}, {"gateway.port": 3})
    settings = found.settings
    assert (settings.gateway.port, settings.models_dir, settings.gateway.host) == (3, "e", "10.0.0.1")
    assert found.given == {"gateway.port", "models_dir", "gateway.host"}


def test_a_file_can_be_named_by_flag_and_by_variable(here: Path) -> None:
    for name, port in (("a.toml", 1), ("b.toml", 2)):
        (here / name).write_text(f"[gateway]\nport = {port}\n")
    assert config.find(Path("a.toml"), {"MODELMQ_CONFIG": "b.toml"}, {}).settings.gateway.port == 1
    assert config.find(None, {"MODELMQ_CONFIG": "b.toml"}, {}).settings.gateway.port == 2


def test_a_file_that_is_named_must_be_there_and_readable(here: Path) -> None:
    with pytest.raises(ConfigError, match=r"^The settings file nowhere.toml does not exist"):
        config.find(Path("nowhere.toml"), {}, {})
    (here / "odd.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8"):
        config.find(Path("odd.toml"), {}, {})
    with pytest.raises(ConfigError, match="cannot be read"):
        config.find(here, {}, {})


def test_a_mistake_is_named_with_its_line(here: Path) -> None:
    (here / "modelmq.toml").write_text("[gateway]\nprot = 1\n")
    with pytest.raises(ConfigError, match=r"modelmq\.toml, line 2: .*port"):
        config.find(None, {}, {})


def test_set_flags_are_taken_apart() -> None:
    assert config.flags_of(["gateway.port=9", "broker.vhost = a=b"]) == {"gateway.port": "9", "broker.vhost": "a=b"}
    with pytest.raises(ConfigError, match="key=value"):
        config.flags_of(["gateway.port"])


def test_nothing_runs_nothing_changes() -> None:
    found = config.find(None, {}, {})
    assert config.attached(found) == found.settings


def test_a_running_gateway_and_its_models_are_found(here: Path) -> None:
    state = StateDir(here / ".modelmq")
    with state.owned():
        state.announce({"MODELMQ_GATEWAY_PORT": "8123", "MODELMQ_MODELS_DIR": "/m"})
        settings = config.attached(config.find(None, {}, {}))
        assert (settings.gateway.port, settings.models_dir) == (8123, "/m")
        told = config.attached(config.find(None, {"MODELMQ_MODELS_DIR": "mine"}, {"gateway.port": 9}))
        assert (told.gateway.port, told.models_dir) == (9, "mine")
    assert config.attached(config.find(None, {}, {})).gateway.port == 8000


def test_what_belongs_together_is_taken_together(here: Path) -> None:
    state = StateDir(here / ".modelmq")
    running = {
        "MODELMQ_GATEWAY_HOST": "10.0.0.1",
        "MODELMQ_GATEWAY_PORT": "8123",
        "MODELMQ_TOPOLOGY_ENVIRONMENT": "prod",
        "MODELMQ_BROKER_VHOST": "ml-prod",
        "MODELMQ_TOPOLOGY_ROLES": "fast=a,b;slow=c",
    }
    with state.owned():
        state.announce(running)
        found = config.attached(config.find(None, {}, {}))
        assert (found.topology.environment, found.broker.vhost) == ("prod", "ml-prod")
        assert found.topology.roles == {"fast": ("a", "b"), "slow": ("c",)}
        told = config.attached(config.find(None, {}, {"gateway.port": 9, "topology.environment": "test"}))
        assert (told.gateway.host, told.gateway.port, told.broker.vhost) == ("127.0.0.1", 9, "ml-test")
