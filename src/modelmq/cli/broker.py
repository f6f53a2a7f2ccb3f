"""`modelmq broker start|stop`: the private RabbitMQ of a state folder alone, in the background."""

from __future__ import annotations

from modelmq.broker import node
from modelmq.errors import ModelMQError
from modelmq.settings import Settings
from modelmq.supervisor import private_node
from modelmq.supervisor.state import StateDir


def start(settings: Settings) -> None:
    """Starts it or finds it running, and prints where it is. Raises NodeError."""
    state = StateDir(settings.state_dir)
    state.create()
    # The node of a running `modelmq up` is that process's to start and stop.
    found = private_node.running(state) if state.running() else None
    running = found or node.start(private_node.spec(state, settings))
    tls = not running.amqp_port
    amqp = (
        f"amqps://{private_node.HOST}:{running.amqps_port}"
        if tls
        else f"amqp://{private_node.HOST}:{running.amqp_port}"
    )
    for name, value in (
        ("RabbitMQ", f"{running.version}, process {running.pid}"),
        ("AMQP", amqp),
        ("Management", running.management_url),
        *([("Authority", running.ca_file)] if tls else []),
        ("Next", "modelmq topology apply"),
        ("Stop", "modelmq broker stop"),
    ):
        print(f"{name:<10} {value}")  # noqa: T201 - this is the command's output


def stop(settings: Settings) -> None:
    """Stops it with everything that belongs to it. Raises ModelMQError, NodeError."""
    state = StateDir(settings.state_dir)
    supervisor = state.running()
    if supervisor is not None:
        raise ModelMQError(
            f"modelmq up (process {supervisor.process.pid}) uses this RabbitMQ: stop that one with Ctrl-C."
        )
    stopped = node.stop(state.node)
    print("Stopped." if stopped else f"No RabbitMQ runs from {state.path}.")  # noqa: T201 - as above
