"""The private node of a state folder, as the rest of ModelMQ needs it: where its files are, and settings that use it.

Stands between the node itself and those who want its broker without knowing whose it is. Starts and stops nothing.
"""

from __future__ import annotations

import msgspec

from modelmq.broker.node import NodeSpec, RunningNode, find
from modelmq.settings import Settings
from modelmq.supervisor.state import StateDir

HOST = "127.0.0.1"


def spec(state: StateDir) -> NodeSpec:
    """What to start: the same ports as last time, where they are free."""
    return NodeSpec(directory=state.node)


def running(state: StateDir) -> RunningNode | None:
    """The node, if it runs."""
    return find(state.node)


def with_node(settings: Settings, node: RunningNode) -> Settings:
    """The settings with this node as the broker, and its administrator."""
    broker = msgspec.structs.replace(
        settings.broker,
        hosts=(f"{HOST}:{node.amqp_port}",),
        tls=False,
        ca_file="",
        cert_file="",
        key_file="",
        management_url=node.management_url,
        admin_username=node.admin_username,
        admin_password=node.admin_password,
        admin_password_file="",
    )
    return msgspec.structs.replace(settings, broker=broker)
