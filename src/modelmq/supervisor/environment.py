"""What a service is told: the merged settings as variables, its own user, and the file with its password.

Pure. A service gets no password and no administrator, neither directly nor through the supervisor's environment.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelmq.settings import CATALOG, Settings
from modelmq.settings_source import ENVIRONMENT_PREFIX

_CONFIG_VARIABLE = "MODELMQ_CONFIG"


def service_environ(
    settings: Settings, inherited: Mapping[str, str], user: str, password_file: str, **overrides: object
) -> dict[str, str]:
    """The whole environment of one service. `overrides` name settings with `__` for the dot."""
    given = {key: value_of(settings, key) for key, setting in CATALOG.items() if not setting.secret}
    for key in ("broker.admin_username", "broker.admin_password_file"):
        del given[key]
    given |= {"broker.username": user, "broker.password_file": password_file}
    given |= {key.replace("__", "."): value for key, value in overrides.items()}
    kept = {name: value for name, value in inherited.items() if not name.startswith(ENVIRONMENT_PREFIX)}
    # The settings are complete, so the service must not read a settings file of the folder it happens to run in.
    ours = {_CONFIG_VARIABLE: "/dev/null", "PYTHONUNBUFFERED": "1"}
    return kept | ours | {CATALOG[key].variable: as_text(value) for key, value in given.items()}


def told_to_others(settings: Settings) -> dict[str, str]:
    """What other commands need in order to mean the same installation: as variables, only what is no default.

    Where the broker is, is not among it: the private node tells that itself.
    """
    return {
        setting.variable: as_text(value_of(settings, key))
        for key, setting in CATALOG.items()
        if (setting.section != "broker" or key == "broker.vhost")
        and not setting.secret
        and value_of(settings, key) != setting.default
    }


def value_of(settings: Settings, key: str) -> Any:
    """The setting with this dotted key."""
    value: Any = settings
    for part in key.split("."):
        value = getattr(value, part)
    return value


def as_text(value: object) -> str:
    """The form in which an environment variable gives this value."""
    match value:
        case bool():
            return str(value).lower()
        case dict():
            return ";".join(f"{name}={as_text(items)}" for name, items in value.items())
        case list() | tuple():
            return ",".join(map(str, value))
        case _:
            return str(value)
