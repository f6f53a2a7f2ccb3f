"""The cluster that other tests work with is one: queues are on all nodes, outlive one, and partitions part it."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from modelmq.broker.readiness import amqp_answers
from tests.cluster import Cluster

pytestmark = [pytest.mark.broker, pytest.mark.both_brokers]

PATIENCE_S = 60.0
QUEUE = "q"


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _leader(cluster: Cluster) -> int | None:
    try:
        return cluster.leader("/", QUEUE)
    except LookupError:
        return None


def test_a_queue_is_on_all_nodes_and_has_another_leader_when_one_is_killed(cluster: Cluster) -> None:
    cluster.manage("PUT", f"queues/%2F/{QUEUE}", {"durable": True, "arguments": {"x-queue-type": "quorum"}})
    assert cluster.members("/", QUEUE) == {0, 1, 2}
    killed = (cluster.leader("/", QUEUE) + 1) % 3
    cluster.move_leader("/", QUEUE, killed)
    port = cluster.nodes[killed].amqp_port
    cluster.kill(killed)
    assert not amqp_answers(port)
    _until(lambda: _leader(cluster) not in (None, killed))
    cluster.restore()
    assert amqp_answers(port)
    assert cluster.members("/", QUEUE) == {0, 1, 2}


def test_an_isolated_node_serves_no_more_until_it_is_healed(cluster: Cluster) -> None:
    cluster.isolate(2)
    assert cluster.evaluate(2, "nodes().") == "[]"
    assert cluster.evaluate(0, "nodes().") == "[n1@localhost]"
    if cluster.version.startswith("3."):  # paused, as it is in the minority
        _until(lambda: not amqp_answers(cluster.nodes[2].amqp_port))
    cluster.heal()
    cluster.wait_ready()
    _until(lambda: amqp_answers(cluster.nodes[2].amqp_port))
