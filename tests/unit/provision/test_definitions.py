from __future__ import annotations

import json

from modelmq.provision.definitions import definitions
from modelmq.provision.passwords import matches
from modelmq.settings import TopologySettings
from modelmq.topology import build
from modelmq.topology_names import ModelRoute

TOPOLOGY = build(TopologySettings(), "ml-dev", [ModelRoute("digits", ("1",))])
USERS = [user.name for user in TOPOLOGY.users]


def test_every_object_is_in_it_and_no_password() -> None:
    content = definitions(TOPOLOGY, {user: f"password of {user}" for user in USERS}, dict.fromkeys(USERS, b"salt"))
    assert b"password of" not in content
    told = json.loads(content)
    for part in ("users", "permissions", "policies", "exchanges", "queues", "bindings"):
        assert len(told[part]) == len(getattr(TOPOLOGY, part))
    assert all(matches(f"password of {user['name']}", user["password_hash"]) for user in told["users"])
    assert {each["vhost"] for part in ("queues", "bindings", "policies", "permissions") for each in told[part]} == {
        "ml-dev"
    }
    assert {json.dumps(queue["arguments"]) for queue in told["queues"]} == {'{"x-queue-type": "quorum"}'}
    assert [each["name"] for each in told["global_parameters"]] == ["modelmq-owned-ml-dev"]
