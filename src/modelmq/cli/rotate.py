"""`modelmq topology rotate`: which account is meant, and what is told on the way."""

from __future__ import annotations

from modelmq.broker.management import connect
from modelmq.errors import ConfigError
from modelmq.generations import service_key
from modelmq.provision.accounts import accounts, secrets_dir
from modelmq.provision.rotate import Account, rotate
from modelmq.settings import Settings, TopologySettings
from modelmq.topology_names import DEFAULT_ROLE


def run(settings: Settings, service: str, role: str | None, timeout_s: float) -> None:
    """Until the old user is gone. Raises ConfigError, ProvisionError."""
    topology = settings.topology
    key = service_key(service, _role(topology, role) if service == "worker" else _none(service, role))
    if key in topology.generations:
        raise ConfigError(f"topology.generations names {key}: rotate it there, or take it out.")
    command = f"modelmq topology rotate {service}" + (f" --role {role}" if role else "")
    account = Account(accounts(topology)[key], secrets_dir(settings), settings.broker.vhost, command)
    with connect(settings.broker) as management:
        rotate(account, management, _tell, timeout_s)
    _tell(f"The secret of {key} is rotated.")


def _role(topology: TopologySettings, role: str | None) -> str:
    roles = tuple(topology.roles) or (DEFAULT_ROLE,)
    if role is None and len(roles) == 1:
        return roles[0]
    if role not in roles:
        raise ConfigError(f"Name the workers' role with --role: {', '.join(roles)}.")
    return role


def _none(service: str, role: str | None) -> str:
    if role is not None:
        raise ConfigError(f"Only workers have roles: leave --role out for {service}.")
    return ""


def _tell(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - this is the command's output
