"""The Pulumi component without an engine: what it registers is the topology, whole and protected."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from typing import Any

import pulumi
import pulumi_rabbitmq as rabbitmq
import pytest

from modelmq.provision.pulumi import ServingTopology
from modelmq.settings import TopologySettings
from modelmq.topology import ModelRoute, build
from modelmq.topology_values import Binding, Exchange, Permission, Policy, Queue

MODELS = (
    ModelRoute("digits", ("1", "2")),
    ModelRoute("ml_service", queue="ml-service-queue", routing_key="ml_service"),
)
TOPOLOGY = build(
    TopologySettings(environment="test", roles={"a": ("digits",), "b": ("ml_service",)}), "ml-test", MODELS
)


class Engine(pulumi.runtime.Mocks):
    """Notes what is registered. Answers a stash as the engine does: with what was put in."""

    def __init__(self) -> None:
        self.registered: list[pulumi.runtime.MockResourceArgs] = []
        self.secret: list[bool] = []

    def new_resource(self, args: pulumi.runtime.MockResourceArgs) -> tuple[str, dict[str, Any]]:
        self.registered.append(args)
        outputs = dict(args.inputs)
        if args.typ == "pulumi:index:Stash":
            outputs["output"] = args.inputs["input"]
        return f"{args.name}-id", outputs

    def call(self, args: pulumi.runtime.MockCallArgs) -> dict[str, Any]:
        raise AssertionError(f"the component asks nothing, yet it asked {args.token}")

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [each.inputs for each in self.registered if each.typ.rpartition(":")[2] == kind]


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Pulumi makes an event loop in every thread that it works in, and closes none."""
    made = []

    def new_event_loop() -> asyncio.AbstractEventLoop:
        made.append(asyncio.get_event_loop_policy().new_event_loop())
        return made[-1]

    monkeypatch.setattr(asyncio, "new_event_loop", new_event_loop)
    asyncio.set_event_loop(asyncio.new_event_loop())
    yield
    made[0].run_until_complete(made[0].shutdown_default_executor())
    asyncio.set_event_loop(None)
    for loop in made:
        loop.close()


@pytest.fixture
def engine(loop: None) -> Engine:
    engine = Engine()
    pulumi.runtime.set_mocks(engine, project="modelmq", stack="test")

    @pulumi.runtime.test
    def program() -> pulumi.Output[Any]:
        provider = rabbitmq.Provider("broker", endpoint="http://127.0.0.1:1", username="admin", password="secret")
        serving = ServingTopology("serving", TOPOLOGY, provider, "admin", passwords={"ml-client.test": "of the client"})
        secret = pulumi.Output.all(*(each.is_secret() for each in serving.passwords.values()))
        return pulumi.Output.all(secret.apply(engine.secret.extend), serving.vhost)

    program()
    return engine


def test_the_resources_are_the_topology(engine: Engine) -> None:
    admin = Permission("admin", ".*", ".*", ".*")
    assert _vhosts(engine) == [TOPOLOGY.vhost.name]
    assert _same(_users(engine), [(user.name, list(user.tags)) for user in TOPOLOGY.users])
    assert _same(_permissions(engine), [*TOPOLOGY.permissions, admin])
    assert _same(_exchanges(engine), TOPOLOGY.exchanges)
    assert _same(_queues(engine), TOPOLOGY.queues)
    assert _same(_bindings(engine), TOPOLOGY.bindings)
    assert _same(_policies(engine), TOPOLOGY.policies)


def test_all_is_in_the_virtual_host_and_made_by_the_provider_that_was_given(engine: Engine) -> None:
    ours = [each for each in engine.registered if each.typ.startswith("rabbitmq:")]
    assert {each.inputs["vhost"] for each in ours if "vhost" in each.inputs} == {"ml-test"}
    assert all((each.provider or "").endswith("::broker-id") for each in ours)


def test_a_queue_says_all_that_the_broker_will_say_of_it(engine: Engine) -> None:
    for queue in engine.of("Queue"):
        assert queue["settings"] == {
            "durable": True,
            "autoDelete": False,
            "argumentsJson": '{"x-queue-type":"quorum"}',
        }


def test_every_user_has_a_secret_password_of_its_own(engine: Engine) -> None:
    # A secret arrives in a wrapping, anything else as it is.
    passwords = {each["name"]: each["password"]["value"] for each in engine.of("User")}
    made = {name: word for name, word in passwords.items() if name != "ml-client.test"}
    assert passwords["ml-client.test"] == "of the client"
    assert len(set(made.values())) == len(made) == 4
    assert all(len(word) > 40 for word in made.values())
    assert engine.secret == [True] * 5


def _same(found: Sequence[object], wanted: Sequence[object]) -> bool:
    """Equal whatever the order, which the engine chooses."""
    assert [each for each in found if each not in wanted] == []
    assert [each for each in wanted if each not in found] == []
    return len(found) == len(wanted)


def _vhosts(engine: Engine) -> list[str]:
    return [each["name"] for each in engine.of("VHost")]


def _users(engine: Engine) -> list[tuple[str, list[str]]]:
    return [(each["name"], each["tags"]) for each in engine.of("User")]


def _permissions(engine: Engine) -> list[Permission]:
    return [Permission(each["user"], **each["permissions"]) for each in engine.of("Permissions")]


def _exchanges(engine: Engine) -> list[Exchange]:
    found = [(each["name"], each["settings"]) for each in engine.of("Exchange")]
    return [Exchange(name, settings["type"], settings["durable"]) for name, settings in found]


def _queues(engine: Engine) -> list[Queue]:
    found = [(each["name"], each["settings"]) for each in engine.of("Queue")]
    return [
        Queue(name, json.loads(settings["argumentsJson"])["x-queue-type"], settings["durable"])
        for name, settings in found
    ]


def _bindings(engine: Engine) -> list[Binding]:
    assert {each["destinationType"] for each in engine.of("Binding")} == {"queue"}
    return [
        Binding(each["source"], each["destination"], each["routingKey"], json.loads(each.get("argumentsJson", "{}")))
        for each in engine.of("Binding")
    ]


def _policies(engine: Engine) -> list[Policy]:
    found = [(each["name"], each["policy"]) for each in engine.of("Policy")]
    return [
        Policy(name, policy["pattern"], policy["applyTo"], _as_sent(policy["definition"]), policy["priority"])
        for name, policy in found
    ]


def _as_sent(definition: dict[str, str]) -> dict[str, str | int]:
    """The provider sends a text that looks like a number as a number."""
    return {key: int(value) if value.lstrip("-").isdigit() else value for key, value in definition.items()}
