"""Which accounts an installation has, and which of their users exist, as its secrets tell.

Between the settings and the topology, for everything that provisions from a state folder. Reads the secrets folder and
writes nothing.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from modelmq.broker.secrets import SECRETS_FOLDER
from modelmq.generations import generation_of, service_key
from modelmq.provision.secret_files import Held
from modelmq.settings import Settings, TopologySettings
from modelmq.topology_names import DEFAULT_ROLE, SERVICES, user_name


def secrets_dir(settings: Settings) -> Path:
    """Where the state folder keeps them."""
    return Path(settings.state_dir) / SECRETS_FOLDER


def accounts(settings: TopologySettings) -> dict[str, str]:
    """By service: the name that its users' are made of."""
    found = {}
    for service in SERVICES:
        for role in (settings.roles or (DEFAULT_ROLE,)) if service == "worker" else ("",):
            found[service_key(service, role)] = user_name(service, settings.environment, role)
    return found


def with_generations(settings: Settings) -> TopologySettings:
    """The topology's settings with the generations that the secrets tell, where none are set. Raises ConfigError."""
    told: dict[str, tuple[int, ...]] = {}
    for service, account in accounts(settings.topology).items():
        held = Held.read(secrets_dir(settings), account)
        numbers = tuple(dict.fromkeys(generation_of(secret.username) for secret in held.all))
        if numbers not in ((), (1,)):
            told[service] = numbers
    return msgspec.structs.replace(settings.topology, generations=told | settings.topology.generations)
