"""The private node of a state folder, as the rest of ModelMQ needs it: where its files are, and settings that use it.

Stands between the node itself and those who want its broker without knowing whose it is. Starts and stops nothing.
"""

from __future__ import annotations

import msgspec

from modelmq.broker.node import NodeSpec, RunningNode, find
from modelmq.errors import ConfigError
from modelmq.settings import Settings
from modelmq.supervisor.state import StateDir

HOST = "127.0.0.1"


def spec(state: StateDir, settings: Settings) -> NodeSpec:
    """What to start: the same ports as last time, where they are free; with TLS only, where the settings say so.

    Raises ConfigError.
    """
    if settings.broker.auth == "external":
        raise ConfigError('broker.auth: the private RabbitMQ takes passwords only; unset "external", or name a broker.')
    tls = settings.broker.tls
    return NodeSpec(directory=state.node, plain=not tls, tls=tls)


def running(state: StateDir) -> RunningNode | None:
    """The node, if it runs."""
    return find(state.node)


def with_node(settings: Settings, node: RunningNode) -> Settings:
    """The settings with this node as the broker, verified where it serves with TLS, and its administrator."""
    tls = not node.amqp_port
    broker = msgspec.structs.replace(
        settings.broker,
        hosts=(f"{HOST}:{node.amqp_port or node.amqps_port}",),
        tls=tls,
        ca_file=node.ca_file if tls else "",
        cert_file="",
        key_file="",
        management_url=node.management_url,
        admin_username=node.admin_username,
        admin_password=node.admin_password,
        admin_password_file="",
    )
    return msgspec.structs.replace(settings, broker=broker)
