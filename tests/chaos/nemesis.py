"""Carries out faults: thin actions on processes, links and the broker, each with the evidence that it struck."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence

from tests.chaos.account import Struck
from tests.chaos.broker import REPLY_QUEUE_LENGTH
from tests.chaos.places import OneNode, ThreeNodes
from tests.chaos.schedule import Fault
from tests.chaos.stage import Stage
from tests.cluster import SIZE, Cluster

_AFTERMATH_S = 0.5
"""After a fault is over, connections may still end because of it."""
_READY_S = 60.0
_SLOW_BYTES_PER_S = 500
_REFUSES = ("memory-alarm", "disk-alarm", "link-slow")
"""Faults that need not end a connection: requests are not taken meanwhile."""


class Nemesis:
    """Strikes one stage."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._actions: Mapping[str, Callable[[Fault], Awaitable[None]]] = {
            "worker-kill": self._kill,
            "gateway-kill": self._kill,
            "worker-stop": self._stop,
            "gateway-stop": self._stop,
            "child-kill": self._kill_child,
            "child-stop": self._stop_child,
            "link-cut": self._cut,
            "link-reset": self._reset,
            "link-stall": self._stall,
            "link-slow": self._slow,
            "broker-restart": self._restart_broker,
            "broker-kill": self._kill_broker,
            "node-restart": self._restart_node,
            "node-kill": self._kill_node,
            "node-stop": self._stop_node,
            "partition": self._partition,
            "memory-alarm": self._alarm,
            "disk-alarm": self._alarm,
            "replies-refused": self._refuse_replies,
        }
        self._children_lost = 0
        self._replies_refused = 0

    def victims(self) -> Mapping[str, Sequence[str]]:
        """Whom each kind may strike."""
        services = self._stage.services
        workers = [name for name in services if name.startswith("worker")]
        gateways = [name for name in services if name.startswith("gateway")]
        links = list(self._stage.links)
        asking = [name for name in links if name.startswith(("gateway", "client"))]
        by_prefix = {"worker": workers, "child": workers, "gateway": gateways, "link": links}
        victims = {kind: by_prefix.get(kind.partition("-")[0], ()) for kind in self._actions}
        # Other slow links delay without breaking anything, so they would not count.
        return victims | {"link-slow": asking}

    async def strike(self, fault: Fault) -> Struck:
        """Returns when the fault is over; what it broke may take longer to mend."""
        before, children = self._stage.ended(), self._children_lost
        standing, at = self._stage.standing(), time.monotonic()
        await self._actions[fault.kind](fault)
        await asyncio.sleep(_AFTERMATH_S)
        ended = self._stage.ended() - before
        lost = {what: count for what, count in ended.items() if _is_evidence(what, fault)}
        if self._children_lost > children:
            lost["processes of models"] = self._children_lost - children
        if self._replies_refused:
            lost["replies refused"], self._replies_refused = self._replies_refused, 0
        refused = self._stage.standing().refused - standing.refused
        if refused and fault.kind in _REFUSES:
            lost["requests refused"] = refused
        if fault.kind == "node-stop":  # behind the evidence: what a restart ends, the fault did not
            await asyncio.to_thread(self._node(fault)[0].restore)
        return Struck(fault.number, fault.kind, fault.victim, at, time.monotonic(), standing.in_flight, lost)

    async def _kill(self, fault: Fault) -> None:
        service = self._stage.services[fault.victim]
        lives = len(service.lives)
        service.kill()
        async with asyncio.timeout(_READY_S):
            while len(service.lives) == lives:  # noqa: ASYNC110 - the process is gone; its end is about to be seen
                await asyncio.sleep(0.01)
            await service.up.wait()

    async def _stop(self, fault: Fault) -> None:
        service = self._stage.services[fault.victim]
        pid = service.kill(signal.SIGSTOP)
        await asyncio.sleep(fault.lasts_s)
        if pid and pid == service.pid:
            service.kill(signal.SIGCONT)

    async def _kill_child(self, fault: Fault) -> None:
        self._children_lost += bool(self._signal_child(fault, signal.SIGKILL))

    async def _stop_child(self, fault: Fault) -> None:
        pid = self._signal_child(fault, signal.SIGSTOP)
        await asyncio.sleep(fault.lasts_s)
        service = self._stage.services[fault.victim]
        if pid in service.children():  # nothing was asked of it, so nobody noticed
            _signal(pid, signal.SIGCONT)
        elif pid:
            self._children_lost += 1

    def _signal_child(self, fault: Fault, number: int) -> int:
        children = sorted(self._stage.services[fault.victim].children())
        if not children:
            return 0
        pid = children[int(fault.dice * len(children))]
        return pid if _signal(pid, number) else 0

    async def _cut(self, fault: Fault) -> None:
        self._stage.links[fault.victim].cut()

    async def _reset(self, fault: Fault) -> None:
        self._stage.links[fault.victim].reset()

    async def _stall(self, fault: Fault) -> None:
        link = self._stage.links[fault.victim]
        link.stall()
        await asyncio.sleep(fault.lasts_s)
        link.release()

    async def _slow(self, fault: Fault) -> None:
        link = self._stage.links[fault.victim]
        link.bytes_per_s = _SLOW_BYTES_PER_S
        await asyncio.sleep(fault.lasts_s)
        link.bytes_per_s = 0

    async def _alarm(self, fault: Fault) -> None:
        broker, kind = self._stage.broker, fault.kind.partition("-")[0]
        await broker.raise_alarm(kind)  # type: ignore[arg-type]
        try:
            await asyncio.sleep(fault.lasts_s)
        finally:
            await broker.clear_alarm(kind)  # type: ignore[arg-type]

    async def _restart_broker(self, fault: Fault) -> None:
        place = self._stage.broker.place
        assert isinstance(place, OneNode)
        await asyncio.to_thread(place.restart)

    async def _kill_broker(self, fault: Fault) -> None:
        place = self._stage.broker.place
        assert isinstance(place, OneNode)
        await asyncio.to_thread(place.kill)
        await asyncio.to_thread(place.start)

    async def _restart_node(self, fault: Fault) -> None:
        cluster, index = self._node(fault)
        await asyncio.to_thread(cluster.restart, index)
        await asyncio.to_thread(cluster.restore)

    async def _kill_node(self, fault: Fault) -> None:
        cluster, index = self._node(fault)
        await asyncio.to_thread(cluster.kill, index)
        await asyncio.to_thread(cluster.restore)

    async def _stop_node(self, fault: Fault) -> None:
        cluster, index = self._node(fault)
        await asyncio.to_thread(cluster.pause, index)
        await asyncio.sleep(fault.lasts_s)
        await asyncio.to_thread(cluster.resume, index)

    async def _partition(self, fault: Fault) -> None:
        cluster, index = self._node(fault)
        await asyncio.to_thread(cluster.isolate, index)
        await asyncio.sleep(fault.lasts_s)
        await asyncio.to_thread(cluster.restore)

    def _node(self, fault: Fault) -> tuple[Cluster, int]:
        """Two times of three the one that most is connected to."""
        place = self._stage.broker.place
        assert isinstance(place, ThreeNodes)
        used = Counter(pair.target for link in self._stage.links.values() for pair in link.pairs)
        by_use = sorted(range(SIZE), key=lambda index: -used[place.targets[index]])
        return place.cluster, by_use[max(0, int(fault.dice * 2 * SIZE) - SIZE)]

    async def _refuse_replies(self, fault: Fault) -> None:
        """The producer stops reading until its queue is full; what is replied then, the broker does not take."""
        (caller,) = (each for each in self._stage.callers if each.plan.kind == "pika")
        caller.tell("pause")
        try:
            await asyncio.sleep(fault.lasts_s)
            waiting = (await self._stage.broker.waiting())[caller.plan.reply_queue]
            self._replies_refused = max(0, waiting - REPLY_QUEUE_LENGTH + 1)
        finally:
            caller.tell("resume")


def _is_evidence(what: str, fault: Fault) -> bool:
    """Callers hang up by themselves now and then: their connections tell only of faults of their gateway or link."""
    _, separator, gateway = what.partition("connections of http-")
    return not separator or fault.victim in (f"gateway-{gateway}", f"http-{gateway}")


def _signal(pid: int, number: int) -> bool:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True
