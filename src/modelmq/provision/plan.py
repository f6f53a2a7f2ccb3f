"""Compares what stands on the broker with the Topology and lists what makes them equal.

Pure: the observed state, the wanted value and the secrets come in, a `Plan` goes out. The parts are its neighbours:
what to write (`differences`), what cannot be written (`conflicts`), what is no longer wanted (`removals`), and what
others added (`strays`). Objects that are not ours are left alone. Does not know how a plan is carried out.
"""

from __future__ import annotations

from collections.abc import Mapping

from modelmq.provision.conflicts import conflicts
from modelmq.provision.differences import differences
from modelmq.provision.ownership import records
from modelmq.provision.plan_values import Allowed, Observed, Plan
from modelmq.provision.removals import removals
from modelmq.provision.strays import strays
from modelmq.topology_values import Topology

_CAREFUL = Allowed()


def plan(topology: Topology, observed: Observed, passwords: Mapping[str, str], allowed: Allowed = _CAREFUL) -> Plan:
    """What makes the broker equal to the topology. `passwords` are by user; one that is not given is not compared."""
    against = conflicts(topology, observed, allowed)
    changes = differences(topology, observed, passwords, {each.name: each for each in against.replacements})
    gone, kept = removals(topology, observed, allowed)
    first, last = records(topology, observed, gone, writes=bool(changes) or allowed.adopt)
    return Plan(changes, gone, against.refusals, kept, strays(topology, observed), first, last)
