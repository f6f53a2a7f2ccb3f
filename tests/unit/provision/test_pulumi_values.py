from __future__ import annotations

import shlex

import pytest

from modelmq.provision import pulumi_values
from modelmq.settings import BrokerSettings, TopologySettings, load
from modelmq.topology_values import User


@pytest.mark.parametrize("mode", ["direct", "queue"])
def test_a_service_that_is_told_its_environment_means_the_same_installation(mode: str) -> None:
    roles = {"vision": ("digits", "faces"), "money": ("fraud",)}
    topology = TopologySettings(environment="prod", reply_mode=mode, roles=roles)  # type: ignore[arg-type]
    broker = BrokerSettings(hosts=("a:1", "b:2"), vhost="ml-prod")
    user = User("ml-worker-vision.prod", "worker", role="vision")
    lines = pulumi_values.environment(user, broker, topology, "it's $ecret")
    settings = load("", "f", dict(line.split("=", 1) for line in shlex.split(lines)), {})
    assert settings.topology == topology
    assert (settings.worker.role, settings.broker.username) == ("vision", "ml-worker-vision.prod")
    assert (settings.broker.hosts, settings.broker.password) == (("a:1", "b:2"), "it's $ecret")
