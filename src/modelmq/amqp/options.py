"""Where to connect, as whom, and within which limits. Pure values, and the URL form of them."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import unquote

import msgspec

from modelmq.errors import ConfigError
from modelmq.tls.options import TlsOptions

PORT = 5672
TLS_PORT = 5671
FRAME_MAX = 131_072
"""RabbitMQ's own default; 4.1 and later refuse less than 8192."""
CHANNEL_MAX = 2047
_LONGEST_VHOST = 127  # AMQP's own limit
MAX_BODY_BYTES = 17_000_000
"""A little above RabbitMQ's own limit of 16 MiB (from 4.0 on); older brokers would pass on 128 MiB."""


class Endpoint(msgspec.Struct, frozen=True):
    """One RabbitMQ node."""

    host: str
    port: int = PORT
    tls: TlsOptions | None = None

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


class Credentials(msgspec.Struct, frozen=True):
    """A user and a password, which its repr hides."""

    username: str
    password: str

    def __repr__(self) -> str:
        return f"Credentials(username={self.username!r}, password='***')"


class ConnectionOptions(msgspec.Struct, frozen=True):
    """Everything about a connection. `credentials` is asked at every attempt, so that a rotated secret is found.

    With `external` the client certificate is the login (SASL EXTERNAL), and no credentials are sent.
    """

    endpoints: tuple[Endpoint, ...]
    credentials: Callable[[], Credentials]
    external: bool = False
    vhost: str = "/"
    name: str = ""
    """Shown by RabbitMQ's management."""
    heartbeat_s: float = 10.0
    """A connection silent for twice this long is dead."""
    connect_timeout_s: float = 5.0
    """Longest time for one node to accept a connection, TLS and login included."""
    channel_max: int = CHANNEL_MAX
    frame_max: int = FRAME_MAX
    max_body_bytes: int = MAX_BODY_BYTES
    """Bodies larger than this are not kept: their delivery has an empty body and its true size."""

    def __post_init__(self) -> None:
        if self.external and not all(each.tls and each.tls.cert_file for each in self.endpoints):
            raise ConfigError("A login by client certificate needs cert_file and key_file, and TLS.")
        if len(self.vhost) > _LONGEST_VHOST:
            raise ConfigError(f'The virtual host "{self.vhost[:40]}…" has more than {_LONGEST_VHOST} characters.')


def options_from_url(url: str, *, name: str = "", tls: TlsOptions | None = None) -> ConnectionOptions:
    """`amqp[s]://user:password@host[:port][,host[:port]…][/vhost]`, with percent-encoded parts. Raises ConfigError.

    `tls` counts for amqps://. Without user and password its client certificate is the login.
    """
    scheme, _, rest = url.partition("://")  # urlsplit knows one host only, and refuses a list with [::1] in it
    if scheme not in ("amqp", "amqps"):
        raise ConfigError("An AMQP URL begins with amqp:// or amqps://.")
    if "?" in rest or "#" in rest:
        raise ConfigError("An AMQP URL ends with the virtual host; this client takes no parameters behind it.")
    authority, _, vhost = rest.partition("/")
    login, _, hosts = authority.rpartition("@")
    user, _, password = login.partition(":")
    tls = (tls or TlsOptions()) if scheme == "amqps" else None
    credentials = Credentials(unquote(user), unquote(password))
    return ConnectionOptions(
        endpoints=tuple(_endpoint(host, tls) for host in hosts.split(",")),
        external=not login and tls is not None and bool(tls.cert_file),
        vhost=unquote(vhost) or "/",
        credentials=lambda: credentials,
        name=name,
    )


def _endpoint(text: str, tls: TlsOptions | None) -> Endpoint:
    host, port = text, ""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        port = rest[1:]
        wrong = not bracket or (rest != "" and not rest.startswith(":"))
    else:
        host, _, port = text.partition(":")
        wrong = False
    if wrong or not host or (port and not (port.isascii() and port.isdigit() and 0 < int(port) <= 65_535)):
        raise ConfigError(f'"{text}" in the AMQP URL is not of the form host or host:port.')
    return Endpoint(host, int(port) if port else (TLS_PORT if tls else PORT), tls)
