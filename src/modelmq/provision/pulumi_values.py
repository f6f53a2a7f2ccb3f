"""The topology in the words of Pulumi's RabbitMQ provider, and what a stack tells the services.

Pure: values in, plain values out. The provider would replace a queue, and so delete it, whose settings the broker
echoes in another form; hence arguments as JSON, always with the queue's type. Knows neither engine nor component.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import msgspec

from modelmq.settings import BrokerSettings, TopologySettings
from modelmq.topology_values import Binding, Exchange, Permission, Policy, Queue, User


def exchange_settings(exchange: Exchange) -> dict[str, Any]:
    """As the provider takes them; its own default is not durable."""
    return {"type": exchange.type, "durable": exchange.durable, "auto_delete": False}


def queue_settings(queue: Queue) -> dict[str, Any]:
    """As the provider takes them; its own default is not durable."""
    return {"durable": queue.durable, "auto_delete": False, "arguments_json": _json(queue.arguments)}


def binding_arguments(binding: Binding) -> str | None:
    """As JSON, or nothing where there are none: the broker tells of none by leaving them out."""
    return _json(binding.arguments) if binding.arguments else None


def binding_name(binding: Binding) -> str:
    """What the engine knows a binding by; the provider gives it no name."""
    way = f"{binding.source}-to-{binding.destination}"
    return f"{way}-by-{binding.routing_key}" if binding.routing_key else way


def policy_settings(policy: Policy) -> dict[str, Any]:
    """As the provider takes them: every value a text, which it turns into a number where it looks like one."""
    return {
        "pattern": policy.pattern,
        "priority": policy.priority,
        "apply_to": policy.apply_to,
        "definition": {key: str(value) for key, value in policy.definition.items()},
    }


def rights(permission: Permission) -> dict[str, str]:
    """As the provider takes them."""
    return {"configure": permission.configure, "write": permission.write, "read": permission.read}


def service_key(user: User) -> str:
    """What a stack's outputs call a service: `gateway`, `client`, `operator`, `worker_<role>`."""
    return f"worker_{user.role}" if user.role else user.service


def amqp_url(broker: BrokerSettings, user: str, password: str) -> str:
    """Of the first host, for clients that take one address; it holds the password."""
    scheme = "amqps" if broker.tls else "amqp"
    account = f"{quote(user, safe='')}:{quote(password, safe='')}"
    return f"{scheme}://{account}@{broker.hosts[0]}/{quote(broker.vhost, safe='')}"


def environment(user: User, broker: BrokerSettings, topology: TopologySettings, password: str) -> str:
    """What makes `modelmq gateway` or `modelmq worker` this service: lines for a shell, or for systemd."""
    values: dict[str, str] = {
        "MODELMQ_BROKER_HOSTS": ",".join(broker.hosts),
        "MODELMQ_BROKER_TLS": "true" if broker.tls else "false",
        "MODELMQ_BROKER_VHOST": broker.vhost,
        "MODELMQ_BROKER_USERNAME": user.name,
        "MODELMQ_BROKER_PASSWORD": password,
        "MODELMQ_TOPOLOGY_ENVIRONMENT": topology.environment,
        "MODELMQ_TOPOLOGY_REPLY_MODE": topology.reply_mode,
    }
    if user.role:
        values["MODELMQ_WORKER_ROLE"] = user.role
    if topology.roles:
        values["MODELMQ_TOPOLOGY_ROLES"] = ";".join(
            f"{role}={','.join(names)}" for role, names in topology.roles.items()
        )
    return "".join(f"{name}={shlex.quote(value)}\n" for name, value in values.items())


def _json(arguments: Mapping[str, Any]) -> str:
    return msgspec.json.encode(arguments, order="sorted").decode()
