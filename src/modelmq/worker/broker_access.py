"""How this worker connects to RabbitMQ: the settings turned into connection options.

Passwords in files are read again at every attempt, so a rotated secret takes effect without a restart.
"""

from __future__ import annotations

from pathlib import Path

from modelmq.amqp import ConnectionOptions, Credentials, Endpoint, TlsOptions
from modelmq.errors import ConfigError
from modelmq.settings import Settings, split_host
from modelmq.topology import user_name

_CHANNELS = 2047


def connection_options(settings: Settings, name: str) -> ConnectionOptions:
    """For the worker's own user of its role, unless the settings name another."""
    broker = settings.broker
    tls = TlsOptions(broker.ca_file, broker.cert_file, broker.key_file) if broker.tls else None
    user = broker.username or user_name("worker", settings.topology.environment, settings.worker.role)

    def credentials() -> Credentials:
        if not broker.password_file:
            return Credentials(user, broker.password)
        try:
            return Credentials(user, Path(broker.password_file).read_text().strip())
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"broker.password_file: {broker.password_file} cannot be read: {error}.") from error

    return ConnectionOptions(
        endpoints=tuple(Endpoint(*split_host(host), tls) for host in broker.hosts),
        vhost=broker.vhost,
        credentials=credentials,
        name=name,
        heartbeat_s=broker.heartbeat_s,
        connect_timeout_s=broker.connect_timeout_s,
        channel_max=_CHANNELS,
    )
