"""Where the broker of a run is: one private node, or three as one cluster; and what can befall them."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Protocol

import msgspec

from modelmq.broker.node import NodeSpec, RunningNode, start
from modelmq.broker.processes import identify, wait
from tests.cluster import Cluster, started_cluster

Target = tuple[str, int]
_LOOPBACK = "127.0.0.1"


class Place(Protocol):
    """All calls block. Ports stay the same over restarts."""

    @property
    def node(self) -> RunningNode:
        """One that is up, to ask and to administer."""
        ...

    @property
    def targets(self) -> tuple[Target, ...]:
        """Where clients may connect."""
        ...

    def start(self) -> None:
        """Returns when it answers."""
        ...

    def stop(self) -> None:
        """No process is left; also after `start` failed."""
        ...


class OneNode:
    """A node as `modelmq up` has it."""

    def __init__(self, folder: Path, home: Path | None = None) -> None:
        self._spec = NodeSpec(directory=folder / "node", home=home)
        self._node: RunningNode | None = None

    @property
    def node(self) -> RunningNode:
        assert self._node is not None
        return self._node

    @property
    def targets(self) -> tuple[Target, ...]:
        return ((_LOOPBACK, self.node.amqp_port),)

    def start(self) -> None:
        self._node = start(self._spec)
        ports = self._node.amqp_port, int(self._node.management_url.rpartition(":")[2])
        self._spec = msgspec.structs.replace(self._spec, amqp_port=ports[0], management_port=ports[1])

    def stop(self) -> None:
        if self._node is not None:
            self._node.stop()

    def restart(self) -> None:
        """In order, as an operator would."""
        self.stop()
        self.start()

    def kill(self) -> None:
        """SIGKILL; returns when it is gone."""
        process = identify(self.node.pid)
        os.kill(self.node.pid, signal.SIGKILL)
        if process is not None:
            wait([process], 10)
        self.node.stop()


class ThreeNodes:
    """A cluster; `restore` after every fault."""

    def __init__(self, folder: Path, home: Path | None = None) -> None:
        self._folder = folder / "nodes"
        self._home = home
        self._stack = ExitStack()
        self._cluster: Cluster | None = None

    @property
    def cluster(self) -> Cluster:
        """Its nodes."""
        assert self._cluster is not None
        return self._cluster

    @property
    def node(self) -> RunningNode:
        return next(node.running for node in self.cluster.nodes if node.running is not None)

    @property
    def targets(self) -> tuple[Target, ...]:
        return tuple((_LOOPBACK, node.amqp_port) for node in self.cluster.nodes)

    def start(self) -> None:
        self._cluster = self._stack.enter_context(started_cluster(self._folder, self._home))

    def stop(self) -> None:
        if self._cluster is not None:
            with suppress(Exception):
                self._cluster.heal()
        self._stack.close()
