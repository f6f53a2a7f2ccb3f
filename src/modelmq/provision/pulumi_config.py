"""Reads a Pulumi stack's config into settings, models and what may be deleted.

Keys are the settings' own, as in `broker.hosts` or `topology.max_length`, beside the few that only Pulumi has. Pure:
the config comes in as texts, a mistake goes out as a ConfigError of one sentence. Knows neither Pulumi nor a broker.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar
from urllib.parse import urlsplit

import msgspec

from modelmq.errors import ConfigError
from modelmq.settings import Settings, load
from modelmq.topology_names import ModelRoute

T = TypeVar("T")

# What the original program served, one model under its own names.
_DEFAULT_MODELS = (ModelRoute("ml_service", ("1",), queue="ml-service-queue", routing_key="ml_service"),)
_SECTIONS = ("broker", "topology")
_OWN = ("models", "allow_delete", "passwords", "broker_version")
_WHAT = "stack config"
_AMQP_PORT, _AMQPS_PORT = 5672, 5671


class StackConfig(msgspec.Struct, frozen=True):
    """A stack's config. Its repr hides what is secret."""

    settings: Settings
    models: tuple[ModelRoute, ...] = _DEFAULT_MODELS
    allow_delete: frozenset[str] = frozenset()
    """Queues and virtual host that the stack may delete once they are empty."""
    passwords: Mapping[str, str] = {}
    """Of users, by name; the others get one made for them."""
    broker_version: tuple[int, ...] | None = None
    """Given where the broker cannot be asked, as in a preview without one."""

    def __repr__(self) -> str:
        return f"StackConfig(settings={self.settings!r}, models={self.models!r}, passwords=***)"


def parse(config: Mapping[str, str], stack: str) -> StackConfig:
    """The config by key, without the project's name; structured values are JSON. Raises ConfigError.

    The environment is named after the stack, unless `topology.environment` says otherwise.
    """
    flags: dict[str, object] = {"topology.environment": stack}
    own: dict[str, str] = {}
    for key, text in config.items():
        if key in _OWN:
            own[key] = text
        elif "." in key and key.partition(".")[0] in _SECTIONS:
            flags[key] = _structured(text)
        else:
            raise ConfigError(
                f"There is no stack config {key} for ModelMQ: it takes {', '.join(_OWN)} and the settings of "
                f"{' and '.join(_SECTIONS)}, such as broker.management_url."
            )
    settings = _with_hosts(load("", "", {}, flags, flag=_WHAT), given="broker.hosts" in flags)
    _require(settings)
    return StackConfig(
        settings=settings,
        models=_read(own, "models", tuple[ModelRoute, ...], 'a list like [{"name": "digits", "versions": ["1"]}]')
        or _DEFAULT_MODELS,
        allow_delete=_read(own, "allow_delete", frozenset[str], "a list of names of queues and of the virtual host")
        or frozenset(),
        passwords=_read(own, "passwords", dict[str, str], "a table of users with their passwords") or {},
        broker_version=_version(own.get("broker_version")),
    )


def _structured(text: str) -> object:
    """Lists and tables come as JSON; all else is a text, which the settings know how to read."""
    if not text.lstrip().startswith(("[", "{")):
        return text
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text


def _read(own: Mapping[str, str], key: str, kind: type[T], expected: str) -> T | None:
    if key not in own:
        return None
    try:
        return msgspec.json.decode(own[key], type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        # The text itself may be a secret, and msgspec's message quotes no values.
        raise ConfigError(f"{_WHAT} for {key}: it must be {expected}: {error}.") from None


def _version(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    parts = text.split(".")
    if len(parts) < 2 or not all(part.isascii() and part.isdigit() for part in parts):
        raise ConfigError(f'{_WHAT} for broker_version: it must be like "3.10" or "4.3.1".')
    return tuple(map(int, parts))


def _with_hosts(settings: Settings, *, given: bool) -> Settings:
    """Where nobody said otherwise, RabbitMQ listens on the machine of its management API."""
    broker = settings.broker
    host = urlsplit(broker.management_url).hostname
    if given or not host:
        return settings
    address = f"[{host}]" if ":" in host else host
    hosts = (f"{address}:{_AMQPS_PORT if broker.tls else _AMQP_PORT}",)
    return msgspec.structs.replace(settings, broker=msgspec.structs.replace(broker, hosts=hosts))


def _require(settings: Settings) -> None:
    for key, value, command in (
        ("broker.admin_username", settings.broker.admin_username, "pulumi config set broker.admin_username NAME"),
        ("broker.admin_password", settings.broker.admin_password, "pulumi config set --secret broker.admin_password"),
    ):
        if not value:
            raise ConfigError(f"There is no {_WHAT} for {key}: run {command}.")
