"""Which fault comes next, to whom, and for how long: all of it told by a seed, so that a run can be had again.

Rounds: in each, every kind that is given comes once, or as often as it is given, in an order of its own. Pure.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence

import msgspec

PROCESS_KINDS = ("worker-kill", "worker-stop", "child-kill", "child-stop", "gateway-kill", "gateway-stop")
LINK_KINDS = ("link-cut", "link-reset", "link-stall", "link-slow")
BROKER_KINDS = ("broker-restart", "broker-kill", "memory-alarm", "disk-alarm", "replies-refused")
SINGLE_NODE_KINDS = PROCESS_KINDS + LINK_KINDS + BROKER_KINDS
TWICE = ("worker-kill", "gateway-kill", "child-kill", "link-cut", "link-reset")
"""Quickly done and quickly mended, so that they come twice in each round of the long form."""
CLUSTER_KINDS = ("node-restart", "node-kill", "node-stop", "partition")

_LASTS_S: Mapping[str, tuple[float, float]] = {
    "worker-stop": (3.5, 4.2),  # the broker gives up a silent connection after two to three heartbeats
    "gateway-stop": (3.5, 4.2),
    "child-stop": (2.0, 2.5),
    "link-stall": (3.5, 4.2),
    "link-slow": (2.5, 3.5),
    "memory-alarm": (1.2, 2.0),
    "disk-alarm": (1.2, 2.0),
    "replies-refused": (2.0, 2.5),
    "node-stop": (4.0, 8.0),
    "partition": (6.0, 10.0),
}
_PAUSE_S = (0.1, 0.6)
_HURRIED = 0.25
"""Share of the faults that come while the one before is not mended yet."""


class Fault(msgspec.Struct, frozen=True):
    """One that is to come."""

    number: int
    kind: str
    victim: str
    pause_s: float
    """From when the system is well again after the one before."""
    lasts_s: float
    hurried: bool
    """Do not wait until it is well."""
    dice: float
    """In [0, 1), for what the victim is asked to choose: which of its processes."""


def faults(seed: int, kinds: Sequence[str], victims: Mapping[str, Sequence[str]]) -> Iterator[Fault]:
    """Without end. `victims` are those that each kind may have; a kind without any has the victim ``""``."""
    dice = random.Random(seed)
    number = 0
    while True:
        for kind in dice.sample(kinds, len(kinds)):
            number += 1
            yield Fault(
                number=number,
                kind=kind,
                victim=dice.choice(victims.get(kind) or ("",)),
                pause_s=dice.uniform(*_PAUSE_S),
                lasts_s=dice.uniform(*_LASTS_S.get(kind, (0.0, 0.0))),
                hurried=dice.random() < _HURRIED,
                dice=dice.random(),
            )
