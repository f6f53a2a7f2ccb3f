"""Which settings a command works with: flags, environment, file, then what runs from the state folder, then defaults.

Every command asks here once. What runs from the state folder fills in only what nobody set, so a command finds it by
itself, means the same models and virtual host, and never talks to another broker than the one it was told.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from modelmq import settings_source
from modelmq.errors import ConfigError
from modelmq.settings import CATALOG, Settings, load
from modelmq.supervisor import private_node
from modelmq.supervisor.state import StateDir

DEFAULT_FILE = "modelmq.toml"
FILE_VARIABLE = "MODELMQ_CONFIG"
_BROKER_KEYS = frozenset({"broker.hosts", "broker.management_url"})
_TOGETHER = (frozenset({"gateway.host", "gateway.port"}), frozenset({"topology.environment", "broker.vhost"}))


class Found(msgspec.Struct, frozen=True):
    """Settings, and which of them somebody set (dotted keys)."""

    settings: Settings
    given: frozenset[str]


def find(config: Path | None, environ: Mapping[str, str], flags: Mapping[str, object]) -> Found:
    """The settings of the file, the environment and the flags. Raises ConfigError."""
    text, source = _file(config, environ)
    settings = load(text, source, environ, flags)
    layers = (
        settings_source.from_toml(text, source, CATALOG),
        settings_source.from_environ(environ, CATALOG),
        settings_source.from_flags(flags, CATALOG),
    )
    return Found(settings, frozenset(key for layer in layers for key in layer))


def attached(found: Found) -> Settings:
    """The same, completed by what runs from the state folder."""
    settings, state = found.settings, StateDir(found.settings.state_dir)
    running = state.running()
    if running is not None:
        settings = _filled_in(settings, found.given, running.settings)
    if not found.given & _BROKER_KEYS:
        node = private_node.running(state)
        if node is not None:
            settings = private_node.with_node(settings, node)
    return settings


def _filled_in(settings: Settings, given: frozenset[str], variables: Mapping[str, str]) -> Settings:
    """With the settings of a running `modelmq up` where nobody set any; those that go together only together."""
    kept = set(given)
    for together in _TOGETHER:
        if given & together:
            kept |= together
    others = settings_source.from_environ(variables, CATALOG)
    for key in others.keys() - kept - {"state_dir"}:
        section, _, name = key.rpartition(".")
        value = others[key].value
        if section:
            name, value = section, msgspec.structs.replace(getattr(settings, section), **{name: value})
        settings = msgspec.structs.replace(settings, **{name: value})
    return settings


def flags_of(pairs: list[str]) -> dict[str, object]:
    """`--set key=value` flags taken apart. Raises ConfigError."""
    flags: dict[str, object] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise ConfigError(f'--set takes key=value, such as gateway.port=9000, not "{pair}".')
        flags[key.strip()] = value.strip()
    return flags


def _file(config: Path | None, environ: Mapping[str, str]) -> tuple[str, str]:
    """Text and name of the settings file; a file that is named must be there."""
    named = config or (Path(environ[FILE_VARIABLE]) if environ.get(FILE_VARIABLE) else None)
    path = named or Path(DEFAULT_FILE)
    try:
        return path.read_text("utf-8"), str(path)
    except FileNotFoundError as error:
        if named is None:
            return "", DEFAULT_FILE
        raise ConfigError(f"The settings file {path} does not exist.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"The settings file {path} cannot be read: it is not UTF-8.") from error
    except OSError as error:
        raise ConfigError(f"The settings file {path} cannot be read: {error.strerror}.") from error
