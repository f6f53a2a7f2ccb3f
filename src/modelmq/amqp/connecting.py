"""From options to an open connection: each node in turn, TLS, login; and all that can go wrong, as one error."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable

from modelmq.amqp.connection import Connection, OnBlocked
from modelmq.amqp.options import ConnectionOptions, Credentials, Endpoint
from modelmq.errors import AccessRefused, BrokerError, ConnectFailed
from modelmq.tls import TlsOptions, client_context, problem

_SENTENCES: tuple[tuple[type[Exception], Callable[[Exception], str]], ...] = (
    (TimeoutError, lambda _: "did not answer in time"),
    (ConnectionRefusedError, lambda _: "refused the connection; is RabbitMQ running there?"),
    (OSError, lambda error: f"cannot be reached: {getattr(error, 'strerror', None) or error}"),
    (UnicodeError, lambda _: "cannot be reached: that is no name of a host"),
    (BrokerError, lambda error: str(error).rstrip(".")),
)
"""What goes wrong below us, by kind; the first that fits."""


async def connect(options: ConnectionOptions, *, on_blocked: OnBlocked | None = None) -> Connection:
    """An open connection to the first node that takes us. `on_blocked` hears of alarms and their ends.

    Raises AccessRefused when a node refused user or virtual host, ConnectFailed when none could be reached, and
    ConfigError for certificate files that cannot be read.
    """
    credentials = options.credentials()
    failures: list[str] = []
    for endpoint in options.endpoints:
        try:
            return await _connect(endpoint, options, credentials, on_blocked)
        except AccessRefused as error:
            raise AccessRefused(
                f"RabbitMQ at {endpoint} {_sentence(error, endpoint)}.", reply_code=error.reply_code
            ) from error
        except (OSError, UnicodeError, BrokerError) as error:
            failures.append(f"{endpoint} {_sentence(error, endpoint)}")
    said = "; ".join(failures)
    raise ConnectFailed(f"No RabbitMQ could be reached: {said}" + ("" if said.endswith("?") else "."))


async def _connect(
    endpoint: Endpoint, options: ConnectionOptions, credentials: Credentials, on_blocked: OnBlocked | None
) -> Connection:
    loop = asyncio.get_running_loop()
    context = await asyncio.to_thread(client_context, endpoint.tls) if endpoint.tls is not None else None
    connection = Connection(endpoint, options, credentials, on_blocked)
    try:
        async with asyncio.timeout(options.connect_timeout_s):
            await loop.create_connection(
                lambda: connection,
                endpoint.host,
                endpoint.port,
                ssl=context,
                server_hostname=endpoint.host if context else None,
            )
            await asyncio.shield(connection.opened)
    except BaseException:
        connection.abort()
        connection.opened.cancel()
        raise
    return connection


def _sentence(error: Exception, endpoint: Endpoint) -> str:
    if isinstance(error, ssl.SSLError):
        return problem(error, endpoint.host, endpoint.tls or TlsOptions())
    return next(sentence(error) for kind, sentence in _SENTENCES if isinstance(error, kind))
