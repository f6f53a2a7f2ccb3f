"""Three RabbitMQ nodes on the loopback address, as one cluster, and what can befall them.

    with started_cluster(folder) as cluster:                # home=...: of another RabbitMQ than the system's
        cluster.hosts                                       # ("127.0.0.1:…", …) for broker.hosts
        leader = cluster.leader("ml-dev", "ml-model.digits.interactive")
        cluster.kill(leader)                                # SIGKILL
        cluster.start(leader)                               # and back, with the same ports and data
        cluster.restore()                                   # whatever was done to it: all three are up, whole and ready

Queues must be declared after the cluster has formed, so that each has three members. Everything is private (an epmd and
a cookie of its own, 0700, loopback) and ends with the tests, however these end; several clusters may run at once. All
calls block: from a loop, use `asyncio.to_thread`.
"""

from __future__ import annotations

import base64
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from modelmq.broker import node_record, ports
from modelmq.broker.install import locate
from modelmq.broker.node import NodeSpec, RunningNode, start
from modelmq.broker.node_config import LOOPBACK, OWNER_VARIABLE, files_in
from modelmq.broker.processes import end, with_variable
from tests.nodes import evaluate, order

SIZE = 3
_ADMIN = "modelmq-admin"
_ERL_TIMEOUT_S = 30.0
_READY_TIMEOUT_S = 90.0
_RESUMED_TIMEOUT_S = 30.0
_EPMD_TIMEOUT_S = 10.0

_CONF = """\
cluster_partition_handling = pause_minority
net_ticktime = 4
cluster_formation.peer_discovery_backend = classic_config
"""

# A session that is killed cannot end its nodes; this process sees its pipe close, and does.
_WATCH = """
import sys
from modelmq.broker.processes import end, with_variable
sys.stdin.read()
for folder in sys.argv[1:]:
    end(with_variable("MODELMQ_NODE", folder), 0.0)
"""

# True when each of the nodes sees that all of them run.
_ALL_RUN = """
Nodes = [{nodes}],
Function = case erlang:function_exported(rabbit_nodes, list_running, 0) of true -> list_running; _ -> all_running end,
Sees = fun(Node) -> case rpc:call(Node, rabbit_nodes, Function, [], 5000) of
    Running when is_list(Running) -> lists:sort(Running) =:= Nodes; _ -> false end end,
lists:all(Sees, Nodes).
"""


class ClusterNode:
    """One of them. `running` is None while it is down; ports and names stay the same."""

    def __init__(self, index: int, spec: NodeSpec) -> None:
        self.index = index
        self.name = f"n{index}@localhost"
        self.spec = spec
        self.files = files_in(spec.directory.resolve())
        self.running: RunningNode | None = None
        self.amqp_port = 0
        self.management_url = ""

    @property
    def up(self) -> bool:
        return self.running is not None

    @property
    def pid(self) -> int:
        """Of the Erlang machine; 0 while it is down."""
        return self.running.pid if self.running else 0

    @property
    def host(self) -> str:
        """As in broker.hosts."""
        return f"{LOOPBACK}:{self.amqp_port}"

    @property
    def admin_username(self) -> str:
        return self._record().username

    @property
    def admin_password(self) -> str:
        return self._record().password

    @property
    def amqp_url(self) -> str:
        """As the cluster's administrator, in the default virtual host."""
        return f"amqp://{self.admin_username}:{self.admin_password}@{self.host}/%2F"

    def _record(self) -> node_record.NodeRecord:
        record = node_record.find_record(self.files)
        assert record is not None
        return record


class Cluster:
    """Three nodes. An index says which one; see this file's first lines."""

    def __init__(self, nodes: Sequence[ClusterNode]) -> None:
        self.nodes = nodes
        self._paused: set[int] = set()
        self._resumed: set[int] = set()
        """Since all was last restored."""
        self._cut = False

    @property
    def hosts(self) -> tuple[str, ...]:
        """For broker.hosts."""
        return tuple(node.host for node in self.nodes)

    @property
    def version(self) -> str:
        """Of RabbitMQ."""
        return next(node.running.version for node in self.nodes if node.running)

    def start(self, *indices: int) -> None:
        """Starts those that are down, at once and together; returns when all of them answer."""
        down = [node for node in (self.nodes[index] for index in indices) if not node.up]
        with ThreadPoolExecutor(SIZE) as pool:
            starting = [pool.submit(_start, node) for node in down]
        for each in starting:
            each.result()

    def kill(self, index: int) -> None:
        """SIGKILL, also of a node that is paused; returns when it is gone."""
        node = self.nodes[index]
        running, node.running = node.running, None
        assert running is not None, f"{node.name} is down already"
        os.kill(running.pid, signal.SIGKILL)
        self._paused.discard(index)
        running.stop(timeout_s=0.0)

    def stop(self, index: int) -> None:
        """In order, as an administrator would."""
        node = self.nodes[index]
        running, node.running = node.running, None
        assert running is not None, f"{node.name} is down already"
        running.stop()

    def restart(self, index: int) -> None:
        """In order, and back."""
        self.stop(index)
        self.start(index)

    def pause(self, index: int) -> None:
        """SIGSTOP: its connections stay open and silent."""
        os.kill(self.nodes[index].pid, signal.SIGSTOP)
        self._paused.add(index)

    def resume(self, index: int) -> None:
        """SIGCONT."""
        os.kill(self.nodes[index].pid, signal.SIGCONT)
        self._paused.discard(index)
        self._resumed.add(index)

    def partition(self, one: int, other: int) -> None:
        """The two hear one another no more. RabbitMQ up to 4.2 may then pause one of them."""
        self._cut = True
        for here, there in ((one, other), (other, one)):
            name = self.nodes[there].name
            # Not the same on both sides, or they would agree.
            self._order(here, f"erlang:set_cookie('{name}', cut{here}), erlang:disconnect_node('{name}'), ok.")

    def isolate(self, index: int) -> None:
        """Neither of the other two hears this one; clients still reach it."""
        for other in range(SIZE):
            if other != index:
                self.partition(index, other)

    def heal(self) -> None:
        """Ends all partitions; `wait_ready` waits for what follows."""
        if not self._cut:
            return
        names = ", ".join(f"'{node.name}'" for node in self.nodes)
        for node in self.nodes:
            if node.up:
                self._order(
                    node.index, f"[erlang:set_cookie(N, erlang:get_cookie()) || N <- [{names}], N =/= node()], ok."
                )
        self._cut = False

    def wait_ready(self, timeout_s: float = _READY_TIMEOUT_S) -> None:
        """Until each node that is up sees all those that are. Raises TimeoutError."""
        up = [node for node in self.nodes if node.up]
        whole = _ALL_RUN.format(nodes=", ".join(f"'{node.name}'" for node in up))
        deadline = time.monotonic() + timeout_s
        while self.evaluate(up[0].index, whole) != "true":
            if time.monotonic() > deadline:
                raise TimeoutError(f"The cluster is not whole after {timeout_s:.0f} s.")
            time.sleep(0.1)

    def restore(self) -> None:
        """Whatever was done: no node is paused, cut off or down, and they are one cluster."""
        for index in tuple(self._paused):
            self.resume(index)
        resumed, self._resumed = self._resumed, set()
        self.heal()
        self.start(*range(SIZE))
        may_stay_apart = resumed and self.version.startswith("3.")
        try:
            self.wait_ready(_RESUMED_TIMEOUT_S if may_stay_apart else _READY_TIMEOUT_S)
        except TimeoutError:
            if not may_stay_apart:
                raise
            # Who was suspended may not have seen the others go, and does not pause: it must be restarted by somebody
            # (https://www.rabbitmq.com/docs/partitions#suspend).
            for index in resumed:
                self.restart(index)
            self.wait_ready()

    def leader(self, vhost: str, queue: str) -> int:
        """The index of the node that leads a quorum queue. Raises LookupError while it has no leader."""
        answer = self._ask_members(vhost, queue)
        found = re.search(r"\],\{[^{}]*,n(\d)@localhost\}\}$", answer)
        if not answer.startswith("{ok,") or found is None:
            raise LookupError(f"The queue {queue} has no leader: {answer}")
        return int(found[1])

    def members(self, vhost: str, queue: str) -> set[int]:
        """The indices of the nodes that hold a quorum queue, up or down."""
        answer = self._ask_members(vhost, queue)
        if not answer.startswith("{ok,"):
            raise LookupError(f"The queue {queue} has no leader: {answer}")
        return {int(index) for index in re.findall(r"n(\d)@localhost", answer)}

    def move_leader(self, vhost: str, queue: str, to: int) -> None:
        """Another member becomes the queue's leader; returns when it is."""
        name = self.nodes[to].name
        self._ask_queue(
            vhost, queue, f"{{ok, _, L}} = ra:members(Here, 5000), ra:transfer_leadership(L, {{Name, '{name}'}})."
        )
        deadline = time.monotonic() + _ERL_TIMEOUT_S
        while True:
            try:
                if self.leader(vhost, queue) == to:
                    return
            except LookupError:
                pass
            if time.monotonic() > deadline:
                raise TimeoutError(f"{name} does not become the leader of {queue}.")

    def messages(self, vhost: str, queue: str) -> int:
        """How many a quorum queue has now, ready or held, as its member on the first node that is up knows it."""
        answer = self._ask_queue(
            vhost, queue, "{ok, {_, N}, _} = ra:local_query(Here, fun rabbit_fifo:query_messages_total/1), N."
        )
        if not answer.isdecimal():
            raise LookupError(f"The queue {queue} does not tell what it has: {answer}")
        return int(answer)

    def evaluate(self, index: int, expression: str) -> str:
        """What an Erlang expression is worth on a node, printed; `{badrpc,…}` where it cannot be asked."""
        node = self.nodes[index]
        return evaluate(node.spec.directory, expression)

    def _order(self, index: int, expression: str) -> None:
        order(self.nodes[index].spec.directory, expression)

    def manage(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """A call of the management API, of the first node that is up; what it answered, or None for nothing."""
        node = next(node for node in self.nodes if node.up)
        token = base64.b64encode(f"{node.admin_username}:{node.admin_password}".encode()).decode()
        request = urllib.request.Request(
            f"{node.management_url}/api/{path}",
            None if body is None else json.dumps(body).encode(),
            {"Authorization": f"Basic {token}", "Content-Type": "application/json"},
            method=method,
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=30) as answer:
            data = answer.read()
        return json.loads(data) if data else None

    def _ask_members(self, vhost: str, queue: str) -> str:
        return self._ask_queue(vhost, queue, "ra:members(Here, 5000).")

    def _ask_queue(self, vhost: str, queue: str, expression: str) -> str:
        index = next(node.index for node in self.nodes if node.up)
        return self.evaluate(
            index,
            f'{{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"{vhost}">>, queue, <<"{queue}">>)),'
            f" {{Name, _}} = amqqueue:get_pid(Q), Here = {{Name, node()}}, {expression}",
        )


@contextmanager
def started_cluster(folder: Path, home: Path | None = None, *, extra_conf: str = "") -> Iterator[Cluster]:
    """Three nodes that are one cluster. `folder` is made; `extra_conf` is added to each rabbitmq.conf."""
    folder = folder.resolve()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folders = [folder / f"n{index}" for index in range(SIZE)]
    watch = subprocess.Popen(
        [sys.executable, "-c", _WATCH, *map(str, [*folders, folder])], stdin=subprocess.PIPE, start_new_session=True
    )
    try:
        epmd_port, epmd = _start_epmd(folder, home)
        try:
            specs = [_spec(each, home, epmd_port, extra_conf) for each in folders]
            cluster = Cluster([ClusterNode(index, spec) for index, spec in enumerate(specs)])
            _write_records(cluster.nodes)
            try:
                cluster.start(*range(SIZE))
                cluster.wait_ready()
                yield cluster
            finally:
                for node in cluster.nodes:
                    if node.up:  # they are thrown away, so an orderly end would only take time
                        cluster.kill(node.index)
        finally:
            epmd.kill()
            epmd.wait()
        watch.kill()  # nothing is left for it
    finally:
        watch.communicate(timeout=60)


def _spec(folder: Path, home: Path | None, epmd_port: int, extra_conf: str) -> NodeSpec:
    names = "".join(f"cluster_formation.classic_config.nodes.{i + 1} = n{i}@localhost\n" for i in range(SIZE))
    return NodeSpec(folder, extra_conf=f"{_CONF}{names}{extra_conf}", home=home, epmd_port=epmd_port)


def _write_records(nodes: Sequence[ClusterNode]) -> None:
    """Nodes of one cluster have one cookie and one administrator."""
    cookie, password = secrets.token_hex(24), secrets.token_urlsafe(24)
    for node in nodes:
        node_record.prepare(node.files)
        node_record.write_private(node.files.cookie, cookie)
        node.files.cookie.chmod(0o400)
        node_record.save(node.files, node_record.NodeRecord(name=node.name, username=_ADMIN, password=password))


def _start(node: ClusterNode) -> None:
    node.running = start(node.spec)
    node.amqp_port = node.running.amqp_port
    node.management_url = node.running.management_url


def _start_epmd(folder: Path, home: Path | None) -> tuple[int, subprocess.Popen[bytes]]:
    """Its port, and the process. It outlives every node, as the machine's own does."""
    installation = locate(os.environ, home=home)
    for _ in range(3):
        port = ports.choose(None).epmd
        environment = {
            "PATH": installation.path,
            OWNER_VARIABLE: str(folder),
            "ERL_EPMD_ADDRESS": LOOPBACK,
            "ERL_EPMD_PORT": str(port),
        }
        epmd = subprocess.Popen(
            [str(installation.epmd), "-port", str(port)],
            env=environment,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + _EPMD_TIMEOUT_S
        while epmd.poll() is None and time.monotonic() < deadline:
            if not ports.is_free(port):
                return port, epmd
            time.sleep(0.02)
        end(with_variable(OWNER_VARIABLE, str(folder)), 0.0)
        epmd.wait()
    raise AssertionError("No epmd could be started.")
