from __future__ import annotations

import pytest

from modelmq.cli import topology
from modelmq.errors import ProvisionError
from modelmq.provision import Allowed, Change, Plan, Removal
from modelmq.topology_values import Queue

QUEUE = Queue("q", "quorum")


def test_what_the_flags_allow() -> None:
    assert topology.allowed(None, None, adopt=False) == Allowed(remove=True)
    assert topology.allowed(["a", "b"], ["c"], adopt=True) == Allowed(True, frozenset("ab"), frozenset("c"), True)


def test_only_what_deletes_has_to_be_agreed_to() -> None:
    created = Plan(changes=(Change("create", "queue", "q", QUEUE),))
    assert topology._lost(created) == []
    topology._agreed([], [], "apply")
    replaced = Plan(changes=(Change("replace", "queue", "q", QUEUE),), removals=(Removal("queue", "r"),))
    assert topology._lost(replaced) == ["q", "r"]
    with pytest.raises(ProvisionError, match=r"^Nothing was done: this deletes 1 object \(q\); say .* apply --yes"):
        topology._agreed([], ["q"], "apply")
    with pytest.raises(ProvisionError, match=r"this deletes 4 objects \(a, b, c, …\); say .* destroy --yes"):
        topology._agreed([], list("abcd"), "destroy")
