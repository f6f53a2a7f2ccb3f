"""What a Pulumi program needs around `ServingTopology`: its stack's config, the broker's access, and its outputs.

A thin shell: asks the broker for its version, whose answer also shows at once whether address and administrator are
right. Every mistake ends the program with one sentence.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import msgspec
import pulumi
import pulumi_rabbitmq as rabbitmq

from modelmq.broker.management import connect
from modelmq.errors import ModelMQError
from modelmq.messages import LANES, MODEL_EXCHANGE
from modelmq.provision import pulumi_values as values
from modelmq.provision.pulumi_config import StackConfig, parse
from modelmq.provision.pulumi_deletion import Deletion, allow
from modelmq.topology import build
from modelmq.topology_names import queue_name, routing_keys
from modelmq.topology_values import Topology


class Stack(msgspec.Struct, frozen=True):
    """A stack's config and the topology that it asks for."""

    config: StackConfig
    topology: Topology

    @property
    def administrator(self) -> str:
        """The user that provisions."""
        return self.config.settings.broker.admin_username


def read() -> Stack:
    """Of the stack that runs. Raises RunError, with one sentence."""
    with _one_sentence():
        prefix = f"{pulumi.get_project()}:"
        texts = pulumi.runtime.get_config_env()
        config = parse(
            {key.removeprefix(prefix): texts[key] for key in texts if key.startswith(prefix)}, pulumi.get_stack()
        )
        settings = config.settings
        version = config.broker_version or _version(config)
        topology = build(settings.topology, settings.broker.vhost, config.models, broker_version=version)
        return Stack(config, topology)


def provider(stack: Stack) -> rabbitmq.Provider:
    """The administrator's access, and nobody else's: no default provider of the engine is used."""
    broker = stack.config.settings.broker
    return rabbitmq.Provider(
        "broker",
        endpoint=broker.management_url.rstrip("/"),  # with a slash at its end, the provider finds nothing there
        username=broker.admin_username,
        password=pulumi.Output.secret(broker.admin_password),
        cacert_file=broker.ca_file or None,
    )


def deletion(stack: Stack) -> Deletion:
    """What `allow_delete` of the stack's config names."""
    broker = stack.config.settings.broker
    return allow(stack.config.allow_delete, broker.vhost, lambda: connect(broker))


def outputs(stack: Stack, passwords: Mapping[str, pulumi.Output[str]]) -> dict[str, Any]:
    """What services need to start. Those that hold a password are secret."""
    settings, topology, models = stack.config.settings, stack.topology, stack.config.models
    users = {values.service_key(user): user for user in topology.users}
    worker = next(user for user in topology.users if user.service == "worker")
    found: dict[str, Any] = {
        "vhost": topology.vhost.name,
        "exchange_name": MODEL_EXCHANGE,
        "queue_name": queue_name(models[0], "interactive"),
        "routing_key": routing_keys(models[0])[0][0],
        "user_name": worker.name,
        "queue_names": {model.name: {lane: queue_name(model, lane) for lane in LANES} for model in models},
        "user_names": {service: user.name for service, user in users.items()},
        "amqp_urls": {
            service: passwords[user.name].apply(partial(values.amqp_url, settings.broker, user.name))
            for service, user in users.items()
        },
    }
    for service, user in users.items():
        told = partial(values.environment, user, settings.broker, settings.topology)
        found[f"environment_{service}"] = passwords[user.name].apply(told)
    return found


def _version(config: StackConfig) -> tuple[int, ...]:
    with connect(config.settings.broker) as management:
        return management.overview().version


@contextmanager
def _one_sentence() -> Iterator[None]:
    try:
        yield
    except ModelMQError as error:
        raise pulumi.RunError(error.message) from error
