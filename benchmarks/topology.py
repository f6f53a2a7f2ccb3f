"""Figure 5: what it takes to compare and make the topology of 200 models: questions to the broker, and seconds.

A private RabbitMQ node of its own, empty at first. Counted are the calls of the management API, by its client's own
hook; timed is what `modelmq topology` does within one process, from the first question to the last.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.figure import Amount
from benchmarks.ratios import Target, percentile
from modelmq.broker.management import Management
from modelmq.broker.node import NodeSpec, start
from modelmq.provision import Allowed, plan
from modelmq.provision.apply import apply
from modelmq.provision.look import look
from modelmq.provision.secret_files import known_secrets
from modelmq.settings import TopologySettings
from modelmq.topology import build
from modelmq.topology_names import ModelRoute
from modelmq.topology_values import Topology

MODELS = 200
VHOST = "ml-bench"
Say = Callable[[str], None]


class Counted:
    """A management client and how often it asked and wrote."""

    def __init__(self, management: Management) -> None:
        self.management = management
        self.methods: list[str] = []
        management._http.event_hooks["request"].append(lambda request: self.methods.append(request.method))

    @property
    def writes(self) -> int:
        return sum(method != "GET" for method in self.methods)


def measure(models: int, rounds: int, folder: Path, say: Say) -> list[Amount]:
    """From nothing, again, and a plan of each state, on a node that is ended before this returns."""
    secrets = folder / "topology-secrets"
    with _broker(folder / "topology-node") as counted:
        version = counted.management.overview().version
        routes = [ModelRoute(f"model-{number:04d}", ("1",)) for number in range(models)]
        topology = build(TopologySettings(), VHOST, routes, broker_version=version)
        first_s, _ = _timed(lambda: apply(topology, counted.management, secrets))
        say(f"  applied from nothing: {first_s:.1f} s, {counted.writes} writes")
        counted.methods.clear()
        again_s, _ = _timed(lambda: apply(topology, counted.management, secrets))
        again = counted.writes
        plans = [_plan(topology, counted, secrets) for _ in range(rounds)]
        say(f"  again: {again_s:.2f} s, {again} writes; plans: {', '.join(f'{seconds:.2f} s' for seconds, _ in plans)}")
    what = f"{models} models, {len(topology.queues)} queues, {len(topology.bindings)} bindings"
    return [
        Amount("Plan of a topology, calls", "calls", max(calls for _, calls in plans), Target("at most", 15), (what,)),
        Amount(
            "Plan of a topology, time",
            "s",
            percentile([seconds for seconds, _ in plans], 0.5),
            Target("at most", 1),
            (f"median of {rounds}; the slowest {max(seconds for seconds, _ in plans):.2f} s",),
        ),
        Amount("Apply from nothing", "s", first_s, Target("at most", 20)),
        Amount("Second apply, writes", "writes", again, Target("at most", 0), (f"in {again_s:.2f} s",)),
    ]


def _plan(topology: Topology, counted: Counted, secrets: Path) -> tuple[float, int]:
    counted.methods.clear()
    passwords = known_secrets((user.name for user in topology.users), secrets)
    seconds, made = _timed(
        lambda: plan(topology, look(VHOST, counted.management), passwords, Allowed(remove=True)).empty
    )
    if not made:
        raise RuntimeError("A plan right after an apply is not empty.")
    return seconds, len(counted.methods)


def _timed(act: Callable[[], object]) -> tuple[float, object]:
    began = time.perf_counter()
    result = act()
    return time.perf_counter() - began, result


@contextmanager
def _broker(folder: Path) -> Iterator[Counted]:
    node = start(NodeSpec(directory=folder))
    try:
        with Management(node.management_url, node.admin_username, node.admin_password) as management:
            yield Counted(management)
    finally:
        node.stop()
