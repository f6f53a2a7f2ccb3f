"""`python -m modelmq.gateway`: one gateway, with the health and metrics pages beside its API."""

from __future__ import annotations

import sys

from modelmq import process
from modelmq.gateway.service import Gateway
from modelmq.observe import health_app
from modelmq.observe.http_server import as_handler
from modelmq.process import Process


async def run(own: Process) -> None:
    """Until told to stop. Raises ConfigError."""
    gateway = Gateway(own.settings, own.emit)
    own.metrics.watch_in_flight(lambda: gateway.in_flight)
    gateway.pages = as_handler(health_app(own.metrics, gateway.status))
    await gateway.run(own.stop, own.ready)


if __name__ == "__main__":
    sys.exit(process.main("gateway", run))
