"""`modelmq env`: what other programs need to ask models, as lines that any POSIX shell evaluates safely."""

from __future__ import annotations

import shlex
from pathlib import Path
from urllib.parse import quote

from modelmq.broker.secrets import read_secret, secret_file
from modelmq.errors import ConfigError
from modelmq.settings import Settings
from modelmq.supervisor.addresses import http_url
from modelmq.topology_names import user_name


def run(settings: Settings) -> None:
    """Raises ConfigError when the client's user has no secret yet."""
    for line in lines(settings):
        print(line)  # noqa: T201 - this is the command's output


def lines(settings: Settings) -> list[str]:
    """`export NAME=value`, quoted."""
    values = {
        "MODELMQ_HTTP_URL": http_url(settings),
        "MODELMQ_REPLY_MODE": settings.topology.reply_mode,
        "MODELMQ_AMQP_URL": amqp_url(settings),
    }
    if settings.broker.tls and settings.broker.ca_file:
        values["MODELMQ_AMQP_CA_FILE"] = str(Path(settings.broker.ca_file).absolute())
    return [f"export {name}={shlex.quote(value)}" for name, value in values.items()]


def amqp_url(settings: Settings) -> str:
    """The plain client's URL, password included. Raises ConfigError."""
    broker = settings.broker
    user = user_name("client", settings.topology.environment)
    path = secret_file(settings.state_dir, user)
    if not path.exists():
        raise ConfigError(f"The user {user} has no secret in {path.parent}: run modelmq topology apply first.")
    secret = read_secret("", path)
    login = f"{quote(secret.username or user, safe='')}:{quote(secret.password, safe='')}"
    scheme = "amqps" if broker.tls else "amqp"
    return f"{scheme}://{login}@{','.join(broker.hosts)}/{quote(broker.vhost, safe='')}"
