"""The Pulumi component without an engine: what it registers is the topology, whole and protected."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from modelmq.topology_values import Binding, Exchange, Permission, Policy, Queue
from tests.unit.provision.two_roles import TOPOLOGY

ROOT = Path(__file__).parents[3]


class Registered(msgspec.Struct):
    """What the component told the engine."""

    registered: list[dict[str, Any]]
    secret: list[bool]

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [each["inputs"] for each in self.registered if each["type"].rpartition(":")[2] == kind]


@pytest.fixture(scope="module")
def engine() -> Registered:
    done = subprocess.run(
        [sys.executable, "-m", "tests.unit.provision.registered"],
        cwd=ROOT,
        capture_output=True,
        timeout=60,
        check=True,
    )
    return msgspec.json.decode(done.stdout, type=Registered)


def test_the_resources_are_the_topology(engine: Registered) -> None:
    admin = Permission("admin", ".*", ".*", ".*")
    assert _vhosts(engine) == [TOPOLOGY.vhost.name]
    assert _same(_users(engine), [(user.name, list(user.tags)) for user in TOPOLOGY.users])
    assert _same(_permissions(engine), [*TOPOLOGY.permissions, admin])
    assert _same(_exchanges(engine), TOPOLOGY.exchanges)
    assert _same(_queues(engine), TOPOLOGY.queues)
    assert _same(_bindings(engine), TOPOLOGY.bindings)
    assert _same(_policies(engine), TOPOLOGY.policies)


def test_all_is_in_the_virtual_host_and_made_by_the_provider_that_was_given(engine: Registered) -> None:
    ours = [each for each in engine.registered if each["type"].startswith("rabbitmq:")]
    assert {each["inputs"]["vhost"] for each in ours if "vhost" in each["inputs"]} == {"ml-test"}
    assert all(each["provider"].endswith("::broker-id") for each in ours)


def test_a_queue_says_all_that_the_broker_will_say_of_it(engine: Registered) -> None:
    for queue in engine.of("Queue"):
        assert queue["settings"] == {
            "durable": True,
            "autoDelete": False,
            "argumentsJson": '{"x-queue-type":"quorum"}',
        }


def test_every_user_has_a_secret_password_of_its_own(engine: Registered) -> None:
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


def _vhosts(engine: Registered) -> list[str]:
    return [each["name"] for each in engine.of("VHost")]


def _users(engine: Registered) -> list[tuple[str, list[str]]]:
    return [(each["name"], each["tags"]) for each in engine.of("User")]


def _permissions(engine: Registered) -> list[Permission]:
    return [Permission(each["user"], **each["permissions"]) for each in engine.of("Permissions")]


def _exchanges(engine: Registered) -> list[Exchange]:
    found = [(each["name"], each["settings"]) for each in engine.of("Exchange")]
    return [Exchange(name, settings["type"], settings["durable"]) for name, settings in found]


def _queues(engine: Registered) -> list[Queue]:
    found = [(each["name"], each["settings"]) for each in engine.of("Queue")]
    return [
        Queue(name, json.loads(settings["argumentsJson"])["x-queue-type"], settings["durable"])
        for name, settings in found
    ]


def _bindings(engine: Registered) -> list[Binding]:
    assert {each["destinationType"] for each in engine.of("Binding")} == {"queue"}
    return [
        Binding(each["source"], each["destination"], each["routingKey"], json.loads(each.get("argumentsJson", "{}")))
        for each in engine.of("Binding")
    ]


def _policies(engine: Registered) -> list[Policy]:
    found = [(each["name"], each["policy"]) for each in engine.of("Policy")]
    return [
        Policy(name, policy["pattern"], policy["applyTo"], _as_sent(policy["definition"]), policy["priority"])
        for name, policy in found
    ]


def _as_sent(definition: dict[str, str]) -> dict[str, str | int]:
    """The provider sends a text that looks like a number as a number."""
    return {key: int(value) if value.lstrip("-").isdigit() else value for key, value in definition.items()}
