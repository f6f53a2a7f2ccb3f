"""`modelmq gateway` and `modelmq worker` reach their services; what these do is tested with them."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from modelmq.cli import services
from modelmq.errors import ConfigError
from modelmq.settings import GatewaySettings, Settings


def test_a_gateway_on_a_taken_port_says_so(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        settings = Settings(state_dir=str(tmp_path), gateway=GatewaySettings(port=port))
        with pytest.raises(ConfigError, match=rf"gateway\.port: 127\.0\.0\.1:{port} cannot be listened on"):
            services.run_gateway(settings)


def test_a_worker_without_models_says_so(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    settings = Settings(state_dir=str(tmp_path), models_dir=str(tmp_path / "models"))
    with pytest.raises(ConfigError, match="has no model"):
        services.run_worker(settings)
