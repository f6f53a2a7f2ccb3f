"""The worker: its models, its connection, and the order in which it starts, drains and stops.

The first file of the path: `serve` loads the models of its role and consumes their queues until told to stop. What
happens to a message is served_queue's and everything's after it. Knows no HTTP, no logging, no metrics.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from pathlib import Path
from typing import Any

from modelmq.amqp import Connection, Link
from modelmq.control import WorkerReport
from modelmq.errors import ConfigError
from modelmq.events import Emit, ModelLoadFailed, ServiceStarted, ServiceStopping
from modelmq.messages import DEAD_LETTER_EXCHANGE, GATEWAY_QUEUES
from modelmq.process.broker_access import connection_options
from modelmq.retry_ladder import RETRY_EXCHANGE
from modelmq.runtimes import Catalog, ModelSource, scan
from modelmq.settings import Settings
from modelmq.topology_names import DEFAULT_ROLE, control_queue, user_name
from modelmq.worker.confirmed import ConfirmedPublisher
from modelmq.worker.depth import Counted, DepthCounter
from modelmq.worker.hello import Control
from modelmq.worker.intake import Rules
from modelmq.worker.proving import ProvingPublisher
from modelmq.worker.reply_address import rules_of
from modelmq.worker.served_queue import Opened, ServedQueue, Surroundings
from modelmq.worker.tombstones import Name, Tombstones

SERVICE = "worker"
_CLOSE_MARGIN_S = 5.0
_QUIET_S = 1.0
"""For the broker to agree that nothing more is sent; gateways are told then, else all the same."""


class Worker:
    """One worker process. `run` once; `status` at any time."""

    def __init__(self, settings: Settings, emit: Emit) -> None:
        self.name = f"{socket.gethostname()[:40]}-{os.getpid()}-{secrets.token_hex(3)}"
        self.address = ""
        """Where the process answers for its health; told at the start."""
        self._settings = settings
        self._emit = emit
        user = user_name(SERVICE, settings.topology.environment, settings.worker.role)
        self._options = connection_options(settings, user, self.name)
        replies = rules_of(settings.topology.reply_mode, settings.worker.reply_prefixes)
        self._confirmed = ConfirmedPublisher(DEAD_LETTER_EXCHANGE, RETRY_EXCHANGE, replies.exchange)
        self._proving = ProvingPublisher(self._options, replies.exchange, emit)
        self._changed = asyncio.Event()
        self._draining = False
        self._stopping = asyncio.Event()
        """Told to what is kept open on the connection; each has its own."""
        self._tasks: set[asyncio.Task[None]] = set()
        self.connection: Connection | None = None
        self._tombstones = Tombstones()
        self._looking = False
        """Whether a look at what is held is to come."""
        rules = Rules(settings.worker.max_body_bytes, replies, self._tombstones)
        around = Surroundings(
            settings.worker, emit, self._confirmed, self._proving, rules, self._on_change, self._on_gone
        )
        self.queues = [ServedQueue(versions, around) for versions in _by_model(self._sources())]
        self._depths = DepthCounter(self._full, self._tell_depths)
        self._counted: Counted = {}
        queue = control_queue(settings.worker.role, self.name)
        self._control = Control(queue, self._report, self._withdraw, self._proving, replies, emit)

    def status(self) -> tuple[bool, str]:
        """Whether the worker serves what it can, and what is wrong in any case."""
        if self._draining:
            return False, "draining"
        if self.connection is None or self.connection.closed.done():
            return False, "no connection to RabbitMQ"
        loading = [queue.model for queue in self.queues if not queue.settled]
        if loading:
            return False, f"loading {', '.join(loading)}"
        serving = [queue for queue in self.queues if queue.alive and not queue.missing]
        problems = [f"{queue.model} failed" for queue in self.queues if not queue.alive]
        problems += [f"queue {name} is missing" for queue in self.queues for name in sorted(queue.missing)]
        return bool(serving), "; ".join(problems) or f"serving {len(serving)} models"

    async def run(self, stop: asyncio.Event, ready: Callable[[], None]) -> None:
        """Serve until `stop`; `ready` is called once, when every model has loaded or failed and RabbitMQ is there."""
        link = Link(self._options, self._set_up, service=SERVICE, emit=self._emit, retire=self._retire)
        loading = [asyncio.create_task(version.run()) for queue in self.queues for version in queue.versions.values()]
        started = asyncio.create_task(self._until_started(link, ready))
        proving = asyncio.create_task(self._proving.run())
        stopped = asyncio.create_task(stop.wait())
        try:
            await link.start()
            # A model's task never ends by itself: if one does, its error is a bug that must not idle unnoticed.
            await asyncio.wait([stopped, proving, *loading], return_when=asyncio.FIRST_COMPLETED)
            self._emit(ServiceStopping(SERVICE, "told to stop" if stop.is_set() else "a model's task ended"))
            await self._drain()
        finally:
            await link.stop()
            ended = await _cancel([started, stopped, proving, *loading, *self._tasks])
        for error in ended:
            raise error

    async def _set_up(self, connection: Connection) -> None:
        """For each new connection: nothing here may fail because one queue is absent.

        One that takes over must consume all that the one before does, else it is refused and that one stays.
        """
        takes_over = self.connection is not None and not self.connection.closed.done()
        opened = await self._opened(connection) if takes_over else [{}] * len(self.queues)
        self._stopping.set()
        self._stopping = asyncio.Event()
        self.connection = connection
        connection.closed.add_done_callback(lambda closed: self._proving.distrust(closed.result()))
        self._spawn(self._confirmed.run(connection, self._stopping))
        self._spawn(self._control.run(connection, self._stopping))
        self._spawn(self._depths.run(connection, self._stopping))
        for queue, lanes in zip(self.queues, opened, strict=True):
            queue.attach(connection, lanes)
        if takes_over:
            self._proving.renew()

    async def _opened(self, connection: Connection) -> list[Opened]:
        """What each queue consumes now, on this connection as well. Raises BrokerError, with nothing left of it."""
        results = await asyncio.gather(*(queue.open(connection) for queue in self.queues), return_exceptions=True)
        opened = [(queue, each) for queue, each in zip(self.queues, results, strict=True) if isinstance(each, dict)]
        if len(opened) < len(self.queues):
            await asyncio.gather(*(queue.abandon(lanes) for queue, lanes in opened))
            raise next(each for each in results if isinstance(each, BaseException))
        return [lanes for _, lanes in opened]

    async def _retire(self, connection: Connection) -> None:
        """Until what was taken over it is finished."""
        await asyncio.gather(*(queue.left(connection) for queue in self.queues))

    async def _until_started(self, link: Link, ready: Callable[[], None]) -> None:
        await link.up()
        while not all(queue.settled for queue in self.queues):
            self._changed.clear()
            await self._changed.wait()
        self._emit(ServiceStarted(SERVICE, self.address))
        ready()

    async def _drain(self) -> None:
        """Take no more, tell the gateways, finish what is held. Gateways and broker see the end before it comes."""
        self._draining = True
        taking = [lane for queue in self.queues for lane in queue.lanes]
        drained = asyncio.gather(*(queue.drain() for queue in self.queues))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_QUIET_S):
                for lane in taking:
                    await lane.ended.wait()
        self._control.push()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(drained, self._settings.worker.drain_s + _CLOSE_MARGIN_S)
        self._stopping.set()

    def _on_change(self) -> None:
        self._changed.set()
        self._control.push_soon()

    def _report(self) -> WorkerReport:
        now = time.monotonic()
        reports = tuple(
            version.report(now, queue.prefetch, draining=self._draining)
            for queue in self.queues
            for version in queue.versions.values()
        )
        lanes = tuple(lane for queue in self.queues for lane in queue.report(self._counted))
        self._depths.ask()
        return WorkerReport(self.name, self._settings.worker.role, reports, lanes)

    def _full(self) -> list[str]:
        return [name for queue in self.queues for name in queue.full()]

    def _tell_depths(self, counted: Counted) -> None:
        """To all gateways at once, while it is true."""
        self._counted = counted
        self._control.push()
        self._counted = {}
        for queue in self.queues:
            queue.emptied(counted)

    def _withdraw(self, name: Name, left_s: float | None) -> None:
        """Nobody waits for it."""
        if self._tombstones.add(name, left_s, time.monotonic()):
            self._look_soon()

    def _on_gone(self, address: str) -> None:
        """No reply was brought there. What a client names it may bind later; a gateway's queue is bound before use."""
        if address.startswith(GATEWAY_QUEUES):
            self._tombstones.add_address(address)
            self._look_soon()

    def _look_soon(self) -> None:
        """Many at a time cost one look at what is held."""
        if not self._looking:
            self._looking = True
            asyncio.get_running_loop().call_soon(self._drop_withdrawn)

    def _drop_withdrawn(self) -> None:
        self._looking = False
        now = time.monotonic()
        for queue in self.queues:
            queue.withdraw(lambda name: self._tombstones.holds(name, now))

    def _sources(self) -> list[ModelSource]:
        settings = self._settings
        catalog = scan(Path(settings.models_dir))
        for problem in catalog.problems:
            self._emit(ModelLoadFailed("", "", problem))
        return _of_role(catalog, settings)

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def serve(settings: Settings, emit: Emit, stop: asyncio.Event, ready: Callable[[], None]) -> None:
    """Run a worker until `stop` is set; then drain. `ready` is called once. Raises ConfigError."""
    await Worker(settings, emit).run(stop, ready)


def _of_role(catalog: Catalog, settings: Settings) -> list[ModelSource]:
    """The models this worker serves. Raises ConfigError when there are none, because it would idle unnoticed."""
    role, roles = settings.worker.role, settings.topology.roles
    if role not in roles and (roles or role != DEFAULT_ROLE):
        known = ", ".join(roles) or DEFAULT_ROLE
        raise ConfigError(f'worker.role: "{role}" is no role of topology.roles; the roles are {known}.')
    names = set(roles[role]) if roles else {source.name for source in catalog.models}
    mine = [source for source in catalog.models if source.name in names]
    if not mine:
        why = f" ({catalog.problems[0]})" if catalog.problems else ""
        raise ConfigError(
            f'models_dir "{settings.models_dir}" has no model that a worker of role "{role}" can serve{why}.'
        )
    return mine


def _by_model(sources: Sequence[ModelSource]) -> list[list[ModelSource]]:
    models: dict[str, list[ModelSource]] = {}
    for source in sources:
        models.setdefault(source.name, []).append(source)
    return list(models.values())


async def _cancel(tasks: Iterable[asyncio.Task[Any]]) -> list[BaseException]:
    """End them all; the errors with which some had ended before."""
    tasks = list(tasks)
    for task in tasks:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    return [each for each in results if isinstance(each, Exception)]
