"""The topology in the provider's words: nothing is lost, and no two resources share a name."""

from __future__ import annotations

import json
import shlex

from hypothesis import given
from hypothesis import strategies as st

from modelmq.provision import pulumi_values as values
from modelmq.settings import BrokerSettings, TopologySettings, load
from modelmq.topology import build
from modelmq.topology_names import ModelRoute
from modelmq.topology_values import Topology, User

NAMES = st.text("ab_-1", min_size=1, max_size=4)
PASSWORDS = st.text(st.characters(codec="ascii", categories=("L", "N", "P", "S")), min_size=1, max_size=20)


@st.composite
def topologies(draw: st.DrawFn) -> Topology:
    names = draw(st.lists(NAMES, unique=True, max_size=5))
    versions = st.lists(st.integers(0, 12).map(str), unique=True, max_size=3).map(tuple)
    models = [ModelRoute(name, draw(versions)) for name in names]
    return build(TopologySettings(queue_type=draw(st.sampled_from(["quorum", "classic"]))), "ml-dev", models)


@given(topologies())
def test_no_two_resources_of_a_kind_share_a_name(topology: Topology) -> None:
    names = [values.binding_name(binding) for binding in topology.bindings]
    assert len(set(names)) == len(names)
    services = [values.service_key(user) for user in topology.users]
    assert len(set(services)) == len(services)


@given(topologies())
def test_a_queue_is_declared_whole(topology: Topology) -> None:
    for queue in topology.queues:
        settings = values.queue_settings(queue)
        assert json.loads(settings.pop("arguments_json")) == queue.arguments
        assert settings == {"durable": True, "auto_delete": False}


@given(topologies())
def test_a_policy_keeps_its_numbers(topology: Topology) -> None:
    for policy in topology.policies:
        texts = values.policy_settings(policy)["definition"]
        numbers = {key: int(text) if text.lstrip("-").isdigit() else text for key, text in texts.items()}
        assert numbers == policy.definition


@given(PASSWORDS, st.sampled_from(["", "vision"]), st.booleans())
def test_the_environment_of_a_service_is_read_as_it_was_meant(password: str, role: str, tls: bool) -> None:
    user = User("ml-someone", "worker" if role else "gateway", role=role)
    broker = BrokerSettings(hosts=("a:1", "b:2"), vhost="ml-prod", tls=tls)
    topology = TopologySettings(environment="prod", roles={"vision": ("a", "b"), "text": ("c",)} if role else {})
    text = values.environment(user, broker, topology, password)
    # A shell takes quotes away and nothing else.
    pairs = (shlex.split(line) for line in text.splitlines())
    read = load("", "", dict(pair.split("=", 1) for (pair,) in pairs), {})
    assert (read.broker.hosts, read.broker.tls, read.broker.vhost) == (broker.hosts, tls, "ml-prod")
    assert (read.broker.username, read.broker.password) == ("ml-someone", password)
    assert read.topology == topology
    assert not role or read.worker.role == role


@given(PASSWORDS)
def test_an_address_holds_any_password(password: str) -> None:
    from urllib.parse import unquote, urlsplit  # noqa: PLC0415 - the oracle of this test alone

    url = urlsplit(values.amqp_url(BrokerSettings(hosts=("a:1",), vhost="ml-x/y"), "some@one", password))
    assert (url.scheme, url.hostname, url.port, unquote(url.path[1:])) == ("amqp", "a", 1, "ml-x/y")
    assert (unquote(url.username or ""), unquote(url.password or "")) == ("some@one", password)
