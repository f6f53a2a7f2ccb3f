"""Runs the component without an engine and prints as JSON what it registered.

A process of its own: Pulumi's stand-in of the engine leaves event loops open in its threads, and the gRPC that comes
with it does not go with processes that fork.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import pulumi
import pulumi_rabbitmq as rabbitmq

from modelmq.provision.pulumi import ServingTopology
from tests.unit.provision.two_roles import TOPOLOGY


class Engine(pulumi.runtime.Mocks):
    """Notes what is registered. Answers a stash as the engine does: with what was put in."""

    def __init__(self) -> None:
        self.registered: list[dict[str, Any]] = []

    def new_resource(self, args: pulumi.runtime.MockResourceArgs) -> tuple[str, dict[str, Any]]:
        self.registered.append({"type": args.typ, "provider": args.provider, "inputs": args.inputs})
        outputs = dict(args.inputs)
        if args.typ == "pulumi:index:Stash":
            outputs["output"] = args.inputs["input"]
        return f"{args.name}-id", outputs

    def call(self, args: pulumi.runtime.MockCallArgs) -> dict[str, Any]:
        raise AssertionError(f"the component asks nothing, yet it asked {args.token}")


@pulumi.runtime.test
def program(secret: list[bool]) -> pulumi.Output[Any]:
    """`secret` gets, for each password, whether Pulumi takes it for one."""
    provider = rabbitmq.Provider("broker", endpoint="http://127.0.0.1:1", username="admin", password="secret")
    serving = ServingTopology("serving", TOPOLOGY, provider, "admin", passwords={"ml-client.test": "of the client"})
    found = pulumi.Output.all(*(each.is_secret() for each in serving.passwords.values()))
    return pulumi.Output.all(found.apply(secret.extend), serving.vhost)


if __name__ == "__main__":
    engine = Engine()
    pulumi.runtime.set_mocks(engine, project="modelmq", stack="test")
    secret: list[bool] = []
    program(secret)
    json.dump({"registered": engine.registered, "secret": secret}, sys.stdout)
