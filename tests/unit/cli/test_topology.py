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
    topology._agreed(Plan(changes=(Change("create", "queue", "q", QUEUE),)))
    with pytest.raises(ProvisionError, match=r"^Nothing was done: this deletes 1 objects \(q\); .* apply with --yes\."):
        topology._agreed(Plan(changes=(Change("replace", "queue", "q", QUEUE),)))
    gone = tuple(Removal("queue", name) for name in "abcd")
    with pytest.raises(ProvisionError, match=r"this deletes 4 objects \(a, b, c, …\)"):
        topology._agreed(Plan(removals=gone))
