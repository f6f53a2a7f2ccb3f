"""The whole of `modelmq up` on RabbitMQ 4.3."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.system.up.running import Up


def test_everything_runs_on_it(own: Callable[..., Up], home43: Path) -> None:
    up = own(environ={"RABBITMQ_HOME": str(home43)}).until_serving()
    assert "4.3." in up.text
    assert up.ask().json()["outputs"][0]["data"] == [42.0]
    assert "4.3." in up.command("status")
    assert up.command("topology", "apply", "--models", "models") == "Nothing to change.\n"
    up.stopped()
