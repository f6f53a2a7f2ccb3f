"""Serves an ASGI application inside a loop that is already running.

uvicorn with httptools; signals, logs and lifetime belong to the service. Used for a worker's health port.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import uvicorn

from modelmq.errors import ConfigError
from modelmq.observe.health import Asgi

_MOST_CONNECTIONS = 64
_BACKLOG = 128
_CLOSE_S = 2


@contextlib.asynccontextmanager
async def serve_http(app: Asgi, host: str, port: int, *, setting: str = "worker.health_port") -> AsyncIterator[int]:
    """Serve until the block ends; gives the port, which matters where `port` is 0.

    Raises ConfigError, naming `setting`, when the address cannot be listened on.
    """
    listener = _listen(host, port, setting)
    config = uvicorn.Config(
        app,
        http="httptools",
        ws="none",
        loop="none",
        lifespan="off",
        log_config=None,
        log_level="critical",  # uvicorn's own words are not lines of our log
        access_log=False,
        server_header=False,
        limit_concurrency=_MOST_CONNECTIONS,
        timeout_graceful_shutdown=_CLOSE_S,
    )
    config.load()
    server = uvicorn.Server(config)
    # The three parts of Server.serve without the fourth, which takes over the process's signal handlers.
    server.lifespan = config.lifespan_class(config)
    await server.startup(sockets=[listener])
    ticking = asyncio.create_task(server.main_loop())
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        await ticking
        await server.shutdown(sockets=[listener])


def _listen(host: str, port: int, setting: str) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigError(f"{setting}: {host} is no address to listen on: {error.strerror}.") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise ConfigError(f"{setting}: {host}:{port} cannot be listened on: {error.strerror}.") from error
    listener.setblocking(False)
    return listener
