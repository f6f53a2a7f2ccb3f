from __future__ import annotations

from typing import Any

import pytest

from modelmq.cli import rotate
from modelmq.errors import ConfigError, ProvisionError
from modelmq.settings import BrokerSettings, Settings, TopologySettings

BROKER = BrokerSettings(management_url="http://127.0.0.1:1", admin_username="a", admin_password="p")


def asked(topology: TopologySettings, service: str, role: str | None, tmp_path: Any) -> None:
    rotate.run(Settings(state_dir=str(tmp_path), broker=BROKER, topology=topology), service, role, 1.0)


def test_roles_are_of_workers(tmp_path: Any) -> None:
    two = TopologySettings(roles={"vision": ("a",), "text": ("b",)})
    with pytest.raises(ConfigError, match=r"with --role: vision, text"):
        asked(two, "worker", None, tmp_path)
    with pytest.raises(ConfigError, match=r"with --role: vision, text"):
        asked(two, "worker", "sound", tmp_path)
    with pytest.raises(ConfigError, match=r"leave --role out for gateway"):
        asked(two, "gateway", "vision", tmp_path)


def test_what_the_settings_say_is_not_decided_here(tmp_path: Any) -> None:
    with pytest.raises(ConfigError, match=r"topology\.generations names gateway"):
        asked(TopologySettings(generations={"gateway": (1, 2)}), "gateway", None, tmp_path)


@pytest.mark.parametrize(("service", "role"), [("gateway", None), ("worker", None), ("worker", "default")])
def test_without_secrets_there_is_nothing_to_rotate(service: str, role: str | None, tmp_path: Any) -> None:
    with pytest.raises(ProvisionError, match=r"There is no secret .*: run modelmq topology apply first"):
        asked(TopologySettings(), service, role, tmp_path)
    (tmp_path / "secrets").mkdir()
    with pytest.raises(ProvisionError, match=r"There is no secret .*: run modelmq topology apply first"):
        asked(TopologySettings(), service, role, tmp_path)
