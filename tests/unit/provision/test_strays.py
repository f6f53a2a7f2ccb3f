from __future__ import annotations

import msgspec
import pytest

from modelmq.broker.management_values import BindingInfo, PermissionInfo, PolicyInfo, UserInfo, VhostInfo
from modelmq.provision.ownership import owned_by
from modelmq.provision.plan_values import Observed
from modelmq.provision.strays import strays
from modelmq.settings import TopologySettings
from modelmq.topology import build
from modelmq.topology_names import ModelRoute

TOPOLOGY = build(TopologySettings(), "ml-dev", [ModelRoute("digits")])
EMPTY = Observed((3, 10, 8), "admin", vhosts=(VhostInfo("ml-dev", TOPOLOGY.vhost.description),))
LANE = "ml-model.digits.bulk"


def told(**there: tuple[object, ...]) -> list[str]:
    return [stray.sentence for stray in strays(TOPOLOGY, msgspec.structs.replace(EMPTY, **there))]


@pytest.mark.parametrize(
    "binding",
    [
        BindingInfo("", LANE, "queue", LANE),
        BindingInfo("ml-model-exchange", LANE, "queue", "digits.bulk"),
        BindingInfo("ml-control-exchange", "ml-worker.default.w1", "queue", ""),
        BindingInfo("ml-reply-exchange", "ml-gateway.1", "queue", "x"),
        BindingInfo("theirs", "theirs", "queue", "x"),
        BindingInfo("theirs", LANE, "exchange", "x"),
    ],
)
def test_bindings_that_are_as_they_should_be(binding: BindingInfo) -> None:
    assert told(bindings=(binding,)) == []


@pytest.mark.parametrize(
    "binding",
    [
        BindingInfo("theirs", LANE, "queue", "x"),
        BindingInfo("theirs", "ml-model-exchange", "exchange", "x"),
        BindingInfo("ml-model-exchange", LANE, "queue", "digits.bulk", {"x": 1}),
        BindingInfo("ml-model-exchange", "theirs", "exchange", "x"),
        BindingInfo("ml-model-exchange", "amq.gen-1", "queue", "digits"),
    ],
)
def test_bindings_of_others_on_ours(binding: BindingInfo) -> None:
    (sentence,) = told(bindings=(binding,))
    assert f'"{binding.source} -> {binding.destination} ({binding.routing_key})" was added by somebody else' in sentence


def test_what_a_former_topology_made_is_no_stray() -> None:
    former = owned_by(build(TopologySettings(), "ml-dev", [ModelRoute("digits", ("2",))]))
    binding = BindingInfo("ml-model-exchange", LANE, "queue", "digits.2.bulk")
    assert len(told(bindings=(binding,))) == 1
    assert told(bindings=(binding,), recorded=former) == []


def test_environments_that_share_their_users_are_no_stray() -> None:
    rights = PermissionInfo("ml-gateway", "", "", "", "ml-second")
    assert len(told(elsewhere=(rights,))) == 1
    assert told(elsewhere=(msgspec.structs.replace(rights, user="theirs"),)) == []
    second = VhostInfo("ml-second", TOPOLOGY.vhost.description)
    assert told(elsewhere=(rights,), vhosts=(*EMPTY.vhosts, second)) == []


def test_rights_that_reach_ours() -> None:
    assert told(permissions=(PermissionInfo("theirs", "", "", ""),)) == []
    assert told(permissions=(PermissionInfo("theirs", "^$", "^x", "^y$"),)) == []
    assert len(told(permissions=(PermissionInfo("theirs", "", "bulk", ""),))) == 1
    assert len(told(permissions=(PermissionInfo("theirs", "", "", "(?unreadable"),))) == 1
    root = UserInfo("root", "administrator")
    assert told(permissions=(PermissionInfo("root", ".*", ".*", ".*"),), users=(root,)) == []
    assert told(permissions=(PermissionInfo("admin", ".*", ".*", ".*"),)) == []


@pytest.mark.parametrize(
    ("pattern", "apply_to", "priority", "first"),
    [
        ("bulk", "queues", 9, None),
        ("bulk", "queues", 10, LANE),
        ("bulk", "all", 11, LANE),
        ("bulk", "exchanges", 11, None),
        ("bulk", "quorum_queues", 11, LANE),
        ("bulk", "classic_queues", 11, None),
        ("bulk", "streams", 11, None),
        ("^mine$", "all", 11, None),
        ("^ml-model-exchange$", "exchanges", 0, "ml-model-exchange"),
        ("^ml-model-exchange$", "queues", 0, None),
    ],
)
def test_policies_that_win(pattern: str, apply_to: str, priority: int, first: str | None) -> None:
    sentences = told(policies=(PolicyInfo("theirs", pattern, apply_to, {}, priority),))
    assert sentences == ([f'The policy "theirs" is none of ours and wins over ours on "{first}".'] if first else [])
