"""How a service connects to RabbitMQ: the settings turned into connection options for its own user.

Passwords in files are read again at every attempt and looked at in between, so a rotated secret takes effect without a
restart. A file that names its user as well has the last word on that, because the pair changes together. With
`broker.auth = "external"` there is none: the broker takes the user from the client certificate.
"""

from __future__ import annotations

import msgspec

from modelmq.amqp import ConnectionOptions, Credentials, Endpoint, TlsOptions
from modelmq.broker.secrets import read_secret, secret_file
from modelmq.settings import Settings, split_host


def connection_options(settings: Settings, user: str, name: str) -> ConnectionOptions:
    """For `user`, unless the settings or the secret's file name another. `name` is what RabbitMQ's management shows."""
    broker = settings.broker
    tls = TlsOptions(broker.ca_file, broker.cert_file, broker.key_file) if broker.tls else None
    username = broker.username or user
    external = broker.auth == "external"

    def credentials() -> Credentials:
        if external:
            return Credentials("", "")
        secret = read_secret(broker.password, broker.password_file, setting="broker.password_file")
        return Credentials(secret.username or username, secret.password)

    return ConnectionOptions(
        endpoints=tuple(Endpoint(*split_host(host), tls) for host in broker.hosts),
        credentials=credentials,
        external=external,
        vhost=broker.vhost,
        name=name,
        heartbeat_s=broker.heartbeat_s,
        connect_timeout_s=broker.connect_timeout_s,
    )


def with_own_secret(settings: Settings, user: str) -> Settings:
    """With user and password file of the state folder, where the settings name neither."""
    broker = settings.broker
    if broker.password or broker.password_file or broker.auth == "external":
        return settings
    username = broker.username or user
    path = str(secret_file(settings.state_dir, username))
    return msgspec.structs.replace(
        settings, broker=msgspec.structs.replace(broker, username=username, password_file=path)
    )
