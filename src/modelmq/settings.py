"""Every setting of ModelMQ: its name, default, range and meaning, as frozen records.

`load` merges flags, environment, `modelmq.toml` and defaults, in this order of precedence, and answers a mistake
with the line, what was expected and the nearest right key. Reads neither files nor the environment itself, and does
not know who uses a setting.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from modelmq import settings_source
from modelmq.errors import ConfigError
from modelmq.messages import BODY_LIMIT_BYTES, ReplyMode
from modelmq.settings_source import Given, Setting

# `title` is what an error message says was expected; each field adds its meaning, which docs/settings.md shows.
_Text = Annotated[str, Meta(title="a text")]
_Secret = Annotated[str, Meta(title="a text", extra={"secret": True})]
_NonEmpty = Annotated[str, Meta(min_length=1, max_length=255, title="a text of 1 to 255 characters")]
_Name = Annotated[
    str,
    Meta(pattern=r"^[A-Za-z0-9_-]{1,64}\Z", title="a name of at most 64 letters, digits, - and _"),
]
_Names = Annotated[tuple[str, ...], Meta(title="a list of texts")]
_HostPorts = Annotated[
    tuple[str, ...], Meta(min_length=1, title='a list of at least one "host:port" with a port from 1 to 65535')
]
_Url = Annotated[
    str,
    Meta(
        pattern=r"^https?://[^\s/?#@]+(/[^\s?#@]*)?\Z",
        title="an address like http://host:15672, without user and password",
    ),
]
_Switch = Annotated[bool, Meta(title="true or false")]
_Port = Annotated[int, Meta(ge=0, le=65535, title="a port number from 0 to 65535, where 0 means any free port")]
_Count = Annotated[int, Meta(ge=1, le=10_000_000, title="a whole number from 1 to 10000000")]
_Few = Annotated[int, Meta(ge=1, le=64, title="a whole number from 1 to 64")]
_Body = Annotated[int, Meta(ge=1, le=16_777_216, title="a number of bytes from 1 to 16777216 (16 MiB)")]
_Bytes = Annotated[int, Meta(ge=1, le=2**50, title="a number of bytes from 1 to 1125899906842624")]
_Seconds = Annotated[float, Meta(gt=0, le=1_000_000, title="a number of seconds above 0 and at most 1000000")]
_Delay = Annotated[float, Meta(ge=0, le=1_000_000, title="a number of seconds from 0 to 1000000")]
_Roles = Annotated[
    dict[_Name, tuple[_Name, ...]],
    Meta(title="a table of role names with lists of model names, of letters, digits, - and _ each"),
]

_Generations = Annotated[
    dict[_Name, Annotated[tuple[Annotated[int, Meta(ge=1, le=1_000_000)], ...], Meta(min_length=1, max_length=2)]],
    Meta(title="a table of services (gateway, client, operator, worker_<role>) with one or two whole numbers each"),
]


class BrokerSettings(msgspec.Struct, frozen=True):
    """Where RabbitMQ is and who connects. Its repr hides the passwords."""

    hosts: Annotated[_HostPorts, Meta(description="RabbitMQ nodes; one that answers is used.")] = ("127.0.0.1:5672",)
    vhost: Annotated[_NonEmpty, Meta(description="Virtual host; unset, it is `ml-<topology.environment>`.")] = "ml-dev"
    username: Annotated[_Text, Meta(description="User the service connects as; unset, the service's own user.")] = ""
    password: Annotated[_Secret, Meta(description="Its password; prefer `password_file`.")] = ""
    password_file: Annotated[
        _Text,
        Meta(
            description="File with its password, or with user and password on two lines; a change is taken up at once."
        ),
    ] = ""
    auth: Annotated[
        Annotated[Literal["password", "external"], Meta(title='"password" or "external"')],
        Meta(description="How services log in; `external`: by their client certificate, without a password."),
    ] = "password"
    tls: Annotated[_Switch, Meta(description="Encrypt the AMQP connection and verify the broker.")] = False
    ca_file: Annotated[
        _Text, Meta(description="Certificate authority that signed the broker's certificate; unset, the system's.")
    ] = ""
    cert_file: Annotated[_Text, Meta(description="Client certificate, where the broker asks for one.")] = ""
    key_file: Annotated[_Text, Meta(description="Key of the client certificate.")] = ""
    heartbeat_s: Annotated[_Seconds, Meta(description="A connection silent for twice this long is dead.")] = 10.0
    connect_timeout_s: Annotated[_Seconds, Meta(description="Longest wait for one node to accept a connection.")] = 5.0
    management_url: Annotated[_Url, Meta(description="RabbitMQ's management API, for provisioning and status.")] = (
        "http://127.0.0.1:15672"
    )
    admin_username: Annotated[_Text, Meta(description="User with the tag `administrator`, for provisioning only.")] = ""
    admin_password: Annotated[_Secret, Meta(description="Its password; prefer `admin_password_file`.")] = ""
    admin_password_file: Annotated[_Text, Meta(description="File with the administrator's password.")] = ""

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={value!r}" for name, value in self.__rich_repr__())
        return f"BrokerSettings({fields})"

    def __rich_repr__(self) -> list[tuple[str, object]]:
        hidden = {"password", "admin_password"}
        values = msgspec.structs.asdict(self).items()
        return [(name, "***" if name in hidden and value else value) for name, value in values]


class GatewaySettings(msgspec.Struct, frozen=True):
    """The HTTP side."""

    host: Annotated[_NonEmpty, Meta(description="Address to listen on.")] = "127.0.0.1"
    port: Annotated[_Port, Meta(description="HTTP port.")] = 8000
    max_body_bytes: Annotated[_Body, Meta(description="Largest request body; larger ones are 413.")] = BODY_LIMIT_BYTES
    max_in_flight: Annotated[
        _Count, Meta(description="Requests answered at one time; more are 429, and one model leaves some to others.")
    ] = 4096
    max_connections: Annotated[
        _Count,
        Meta(
            description="HTTP connections at one time. A new one more takes the place of one that asks for nothing, "
            "else it is 503. Fewer where the process may not open as many files."
        ),
    ] = 8192
    head_timeout_s: Annotated[
        _Seconds, Meta(description="Longest time for a request's line and headers; slower ones are 408.")
    ] = 10.0
    body_timeout_s: Annotated[
        _Seconds,
        Meta(
            description="Longest time for a body. Below 1000 bytes per second on the whole, or after 30 s of silence, "
            "it is 408 sooner."
        ),
    ] = 300.0
    idle_timeout_s: Annotated[_Seconds, Meta(description="A connection is closed that asks for nothing this long.")] = (
        75.0
    )
    default_timeout_s: Annotated[_Seconds, Meta(description="Deadline of an HTTP request that names none.")] = 60.0
    confirm_timeout_s: Annotated[
        _Seconds, Meta(description="A request that RabbitMQ has not taken after this long is 503.")
    ] = 1.0
    worker_grace_s: Annotated[
        _Seconds, Meta(description="A model that nobody has served for this long is 503; until then requests wait.")
    ] = 5.0
    connections: Annotated[
        _Few,
        Meta(description="Connections to RabbitMQ, over which models are spread; more do not make one model faster."),
    ] = 1
    drain_s: Annotated[_Seconds, Meta(description="Longest time to finish open requests when told to stop.")] = 30.0
    drain_delay_s: Annotated[
        _Delay,
        Meta(description="So long new connections are accepted after that: until load balancers know (Kubernetes: 5)."),
    ] = 0.0


class WorkerSettings(msgspec.Struct, frozen=True):
    """The side that runs models."""

    role: Annotated[_Name, Meta(description="Role this worker plays: which models it serves, as which user.")] = (
        "default"
    )
    health_host: Annotated[_NonEmpty, Meta(description="Address of the health and metrics port.")] = "127.0.0.1"
    health_port: Annotated[_Port, Meta(description="Health and metrics port.")] = 0
    max_reply_bytes: Annotated[_Body, Meta(description="Largest reply body; a larger one is the outcome `failed`.")] = (
        BODY_LIMIT_BYTES
    )
    max_body_bytes: Annotated[
        _Body, Meta(description="Largest request body; a larger one is the outcome `too_large`.")
    ] = BODY_LIMIT_BYTES
    max_attempts: Annotated[
        _Few, Meta(description="Times a request may end its model's process before it is dead-lettered.")
    ] = 3
    max_run_s: Annotated[
        _Seconds, Meta(description="A model that runs longer is hung, where its own settings say nothing.")
    ] = 60.0
    load_timeout_s: Annotated[_Seconds, Meta(description="Longest time for a model to load and warm up.")] = 120.0
    drain_s: Annotated[_Seconds, Meta(description="Longest time to finish prefetched requests when told to stop.")] = (
        30.0
    )
    reply_prefixes: Annotated[
        _Names, Meta(description="Reply addresses to allow beside the broker's own, by their beginning.")
    ] = ()


class TopologySettings(msgspec.Struct, frozen=True):
    """What is created on the broker; everything but `queue_type` can be changed in place later."""

    environment: Annotated[_Name, Meta(description="dev, test, prod …; part of virtual host and user names.")] = "dev"
    queue_type: Annotated[
        Annotated[Literal["quorum", "classic"], Meta(title='"quorum" or "classic"')],
        Meta(description="Type of the models' queues; it cannot be changed once they exist."),
    ] = "quorum"
    reply_mode: Annotated[
        Annotated[ReplyMode, Meta(title='"direct" or "queue"')],
        Meta(description="How replies travel, the same for all services: see [reply modes](topology.md#reply-modes)."),
    ] = "direct"
    max_length: Annotated[_Count, Meta(description="Requests a lane holds before more are refused (429).")] = 10_000
    max_length_bytes: Annotated[_Bytes, Meta(description="The same bound in bytes.")] = 2**30
    delivery_limit: Annotated[
        _Count, Meta(description="Deliveries of one message after which RabbitMQ itself dead-letters it.")
    ] = 50
    message_ttl_s: Annotated[
        _Seconds, Meta(description="An interactive request waiting longer is cleared; above the gateway's timeout.")
    ] = 600.0
    bulk_ttl_s: Annotated[_Seconds, Meta(description="The same for the bulk lane.")] = 604_800.0
    retry_max_length: Annotated[
        _Count, Meta(description="Requests that may wait for one and the same delay before they are tried again.")
    ] = 10_000
    dead_letter_ttl_s: Annotated[_Seconds, Meta(description="How long dead letters are kept for inspection.")] = (
        604_800.0
    )
    dead_letter_max_length: Annotated[_Count, Meta(description="Dead letters kept per model; the oldest go first.")] = (
        10_000
    )
    expired_ttl_s: Annotated[_Seconds, Meta(description="How long expired requests are kept for inspection.")] = 3600.0
    own_queue_max_length: Annotated[
        _Count, Meta(description="Messages in a reply or control queue of a client or service; the oldest go first.")
    ] = 10_000
    roles: Annotated[
        _Roles, Meta(description="Worker roles and their models; empty, the role `default` has all models.")
    ] = {}
    generations: Annotated[
        _Generations,
        Meta(
            description="Which of a service's users exist, two while its secret is rotated; unset, the secrets decide."
        ),
    ] = {}


class LogSettings(msgspec.Struct, frozen=True):
    """What is written to standard error."""

    level: Annotated[
        Annotated[Literal["debug", "info", "warning", "error"], Meta(title='"debug", "info", "warning" or "error"')],
        Meta(description="Least severe line that is written."),
    ] = "info"
    format: Annotated[
        Annotated[Literal["json", "text"], Meta(title='"json" or "text"')], Meta(description="Form of a line.")
    ] = "json"


class Settings(msgspec.Struct, frozen=True):
    """All settings of one installation."""

    models_dir: Annotated[_NonEmpty, Meta(description="Folder with the models.")] = "models"
    state_dir: Annotated[_NonEmpty, Meta(description="Folder for secrets and the private RabbitMQ node.")] = ".modelmq"
    broker: BrokerSettings = BrokerSettings()
    gateway: GatewaySettings = GatewaySettings()
    worker: WorkerSettings = WorkerSettings()
    topology: TopologySettings = TopologySettings()
    log: LogSettings = LogSettings()


CATALOG: Mapping[str, Setting] = settings_source.catalog(Settings)
"""Every setting by its dotted key."""

# A password may be given itself or as a file; whichever source has the higher precedence and sets either, wins.
_RIVALS = (("broker.password", "broker.password_file"), ("broker.admin_password", "broker.admin_password_file"))


def load(
    text: str, source: str, environ: Mapping[str, str], flags: Mapping[str, object], *, flag: str = "flag"
) -> Settings:
    """The settings that flags, environment, a file's text and the defaults give, the earlier winning.

    `source` is the file's name for error messages, `flag` the word for a flag. Flags are keyed as in CATALOG, None
    meaning not given.
    Raises ConfigError: one sentence naming the place, what was expected and the nearest right key.
    """
    given: dict[str, Given] = {}
    for layer in (
        settings_source.from_toml(text, source, CATALOG),
        settings_source.from_environ(environ, CATALOG),
        settings_source.from_flags(flags, CATALOG, flag),
    ):
        for first, second in _RIVALS:
            if first in layer and second in layer:
                raise ConfigError(f"{layer[second].origin}: set either {first} or {second}, not both.")
            if first in layer or second in layer:
                given.pop(first, None)
                given.pop(second, None)
        given |= layer
    if "topology.environment" in given and "broker.vhost" not in given:
        environment = given["topology.environment"]
        given["broker.vhost"] = Given(f"ml-{environment.value}", environment.origin)
    settings = _assemble(given)
    _check(settings, given)
    return settings


def _assemble(given: Mapping[str, Given]) -> Settings:
    values: dict[str, dict[str, object]] = {}
    for key, (value, _) in given.items():
        setting = CATALOG[key]
        values.setdefault(setting.section, {})[setting.name] = value
    return Settings(
        broker=BrokerSettings(**values.get("broker", {})),  # type: ignore[arg-type]
        gateway=GatewaySettings(**values.get("gateway", {})),  # type: ignore[arg-type]
        worker=WorkerSettings(**values.get("worker", {})),  # type: ignore[arg-type]
        topology=TopologySettings(**values.get("topology", {})),  # type: ignore[arg-type]
        log=LogSettings(**values.get("log", {})),  # type: ignore[arg-type]
        **values.get("", {}),  # type: ignore[arg-type]
    )


def _check(settings: Settings, given: Mapping[str, Given]) -> None:
    """What no single value shows: settings that contradict one another."""

    def refuse(key: str, sentence: str) -> None:
        raise ConfigError(f"{given[key].origin if key in given else key}: {sentence}")

    broker, topology = settings.broker, settings.topology
    for host in broker.hosts:
        try:
            split_host(host)
        except ConfigError as error:
            refuse("broker.hosts", error.message)
    if bool(broker.cert_file) != bool(broker.key_file):
        there, missing = ("cert_file", "key_file") if broker.cert_file else ("key_file", "cert_file")
        refuse(f"broker.{there}", f"broker.{there} needs broker.{missing} beside it.")
    if broker.auth == "external" and not (broker.tls and broker.cert_file):
        refuse("broker.auth", 'broker.auth = "external" needs broker.tls = true, broker.cert_file and broker.key_file.')
    if not broker.tls and (broker.cert_file or (broker.ca_file and not broker.management_url.startswith("https:"))):
        key = "cert_file" if broker.cert_file else "ca_file"
        refuse(f"broker.{key}", f"broker.{key} has no effect without broker.tls = true.")
    if settings.gateway.default_timeout_s >= topology.message_ttl_s:
        key = "gateway.default_timeout_s" if "gateway.default_timeout_s" in given else "topology.message_ttl_s"
        refuse(
            key,
            "gateway.default_timeout_s must be below topology.message_ttl_s, or requests vanish while callers wait.",
        )


def split_host(text: str) -> tuple[str, int]:
    """`host:port`, or `[address]:port` for IPv6, taken apart. Raises ConfigError."""
    host, _, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    name = host[1:-1] if bracketed else host
    if not name or (":" in name) != bracketed or not name.isprintable() or set(name) & set(" /@[]"):
        raise ConfigError(f'broker.hosts: "{text}" is not of the form host:port.')
    if not (port.isascii() and port.isdigit() and 0 < int(port) <= 65535):
        raise ConfigError(f'broker.hosts: "{text}" needs a port from 1 to 65535 after the colon.')
    return name, int(port)
