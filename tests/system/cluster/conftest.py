"""An installation on three nodes, its services as processes, and what the broker still holds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modelmq.messages import ReplyMode
from tests.cluster import Cluster
from tests.system.rotation.conftest import PATIENCE_S, Child, Installation, spawn

__all__ = ["spawn"]  # a fixture

GATE = """
    import time
    from pathlib import Path

    class Model:
        inputs = {"x": ("FP64", [-1])}
        outputs = {"y": ("FP64", [-1])}
        def predict(self, batch):
            with open("FOLDER/NAME.ran", "a") as ran:
                for value in batch["x"]:
                    print(int(value), file=ran)
            while batch["x"].any() and not Path("FOLDER/open").exists():
                time.sleep(0.005)
            return {"y": batch["x"] * 2}
"""
"""Answers nothing but zeros, by which it is warmed up, until the file `open` is there; writes down what it ran."""


@pytest.fixture
def installation(cluster: Cluster, tmp_path: Path, reply_mode: ReplyMode) -> Iterator[Installation]:
    made = Installation(cluster.nodes[0], tmp_path, hosts=cluster.hosts, reply_mode=reply_mode)
    made.add_model("gate", GATE.replace("NAME", "gate"))
    made.add_model("once", GATE.replace("NAME", "once"), "idempotent = false\n")
    made.provision()
    yield made
    cluster.restore()
    cluster.manage("DELETE", f"vhosts/{made.settings.broker.vhost}")
    for user in cluster.manage("GET", "users"):
        if made.settings.topology.environment in user["name"]:
            cluster.manage("DELETE", f"users/{user['name']}")


def node_of(cluster: Cluster, child: Child) -> int:
    """The node that a service is connected to."""
    endpoint = child.lines("BrokerConnected")[-1]["endpoint"]
    return next(node.index for node in cluster.nodes if endpoint.endswith(str(node.amqp_port)))


def hosts_but(cluster: Cluster, index: int) -> str:
    """For MODELMQ_BROKER_HOSTS."""
    return ",".join(node.host for node in cluster.nodes if node.index != index)


async def until_empty(cluster: Cluster, installation: Installation) -> None:
    """No request, dead letter or expired request is anywhere, ready or held. Counts are some seconds old."""
    vhost = installation.settings.broker.vhost
    end = time.monotonic() + PATIENCE_S
    while True:
        queues = await asyncio.to_thread(cluster.manage, "GET", f"queues/{vhost}?columns=name,messages")
        left = _left(queues)
        if left == {}:
            return
        assert time.monotonic() < end, left
        await asyncio.sleep(0.5)


def _left(queues: list[dict[str, Any]]) -> dict[str, int | None]:
    kinds = ("ml-model.", "ml-dead-letter.", "ml-expired", "ml-unrouted")
    return {
        queue["name"]: queue.get("messages")
        for queue in queues
        if queue["name"].startswith(kinds) and queue.get("messages") != 0
    }
