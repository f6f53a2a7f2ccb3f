"""A topology as a RabbitMQ definitions file, for brokers that load one at boot or take one by `rabbitmqctl`.

Pure: passwords and salts come in, their hashes go out. Like an apply it records what is ours, so that `drift` and
later applies know it. Does not know where the file goes.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from modelmq.provision.ownership import owned_by, parameter_name, written
from modelmq.provision.passwords import password_hash
from modelmq.topology_values import Topology


def definitions(topology: Topology, passwords: Mapping[str, str], salts: Mapping[str, bytes]) -> bytes:
    """JSON in the form that RabbitMQ imports. Both mappings are by user; a salt has SALT_BYTES random bytes."""
    content = _accounts(topology, passwords, salts) | _ways(topology)
    return msgspec.json.format(msgspec.json.encode(content), indent=1) + b"\n"


def _accounts(topology: Topology, passwords: Mapping[str, str], salts: Mapping[str, bytes]) -> dict[str, object]:
    """The virtual host, who may do what in it, and what holds there."""
    vhost = topology.vhost.name
    return {
        "vhosts": [
            {
                "name": vhost,
                "description": topology.vhost.description,
                "metadata": {"description": topology.vhost.description, "tags": []},
            }
        ],
        "users": [
            {
                "name": user.name,
                "password_hash": password_hash(passwords[user.name], salts[user.name]),
                "hashing_algorithm": "rabbit_password_hashing_sha256",
                "tags": ",".join(user.tags),
                "limits": {},
            }
            for user in topology.users
        ],
        "permissions": [{"vhost": vhost, **msgspec.structs.asdict(each)} for each in topology.permissions],
        "global_parameters": [{"name": parameter_name(vhost), "value": written(owned_by(topology))}],
        "policies": [
            {
                "vhost": vhost,
                "name": each.name,
                "pattern": each.pattern,
                "apply-to": each.apply_to,
                "definition": each.definition,
                "priority": each.priority,
            }
            for each in topology.policies
        ],
    }


def _ways(topology: Topology) -> dict[str, object]:
    """Where messages go."""
    vhost = topology.vhost.name
    return {
        "exchanges": [
            {
                "vhost": vhost,
                "name": each.name,
                "type": each.type,
                "durable": each.durable,
                "auto_delete": False,
                "internal": False,
                "arguments": {},
            }
            for each in topology.exchanges
        ],
        "queues": [
            {
                "vhost": vhost,
                "name": each.name,
                "durable": each.durable,
                "auto_delete": False,
                "arguments": each.arguments,
            }
            for each in topology.queues
        ],
        "bindings": [
            {
                "vhost": vhost,
                "source": each.source,
                "destination": each.destination,
                "destination_type": "queue",
                "routing_key": each.routing_key,
                "arguments": each.arguments,
            }
            for each in topology.bindings
        ],
    }
