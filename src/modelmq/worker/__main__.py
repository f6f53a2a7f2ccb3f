"""`python -m modelmq.worker`: one worker, with its health and metrics port."""

from __future__ import annotations

import sys

from modelmq import process
from modelmq.observe import health_app, serve_http
from modelmq.process import Process
from modelmq.worker.service import Worker


async def run(own: Process) -> None:
    """Until told to stop. Raises ConfigError."""
    settings = own.settings.worker
    worker = Worker(own.settings, own.emit)
    pages = health_app(own.metrics, worker.status)
    async with serve_http(pages, settings.health_host, settings.health_port) as port:
        host = settings.health_host
        worker.address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        await worker.run(own.stop, own.ready)


if __name__ == "__main__":
    sys.exit(process.main("worker", run))
