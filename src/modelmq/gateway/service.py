"""The gateway: its requester, its registry, its HTTP server, and the order in which they start, drain and stop.

The first file of the path. What a request meets is api's. Started before or after the workers, with RabbitMQ there or
not: what is missing is answered 503 until it comes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import time
from collections.abc import Callable
from importlib.metadata import version

from modelmq.client import window
from modelmq.client.replies import Rights
from modelmq.client.request import Request, not_taken, refused
from modelmq.client.requester import Requester
from modelmq.control import HELLO_INTERVAL_S, decode_report
from modelmq.errors import RequestError
from modelmq.events import BrokerConnected, BrokerHandedOver, Emit, Event, ServiceStarted, ServiceStopping
from modelmq.gateway.admission import rules_of
from modelmq.gateway.api import Api
from modelmq.gateway.backlog import Backlogs, QueueLimits
from modelmq.gateway.registry import Registry
from modelmq.http import Handler, HttpServer, Limits
from modelmq.messages import GATEWAY_QUEUES
from modelmq.process.broker_access import connection_options
from modelmq.protocol import server_metadata_json
from modelmq.settings import Settings
from modelmq.topology_names import user_name

SERVICE = "gateway"
_TICK_S = 0.25
_BUFFERED_BODIES = 32
"""Bodies of the largest size that are held at one time; as many bytes of answers may wait for slow clients."""


class Gateway:
    """One gateway process. Made within a running loop; `run` once, `status` at any time."""

    def __init__(self, settings: Settings, emit: Emit) -> None:
        self.name = f"{socket.gethostname()[:40]}-{os.getpid()}-{secrets.token_hex(3)}"
        self.port = 0
        """Where it listens, once it does."""
        self._settings = settings
        self._emit = emit
        self._now_s = time.monotonic
        self._registry = Registry(settings.gateway.worker_grace_s, self._now_s())
        topology = settings.topology
        self._backlogs = Backlogs(QueueLimits(topology.max_length, topology.max_length_bytes))
        self._greet = asyncio.Event()
        options = connection_options(settings, user_name(SERVICE, settings.topology.environment), self.name)
        rights = Rights(settings.topology.reply_mode, f"{GATEWAY_QUEUES}{self.name}.")
        self._requester = Requester(
            options,
            service=SERVICE,
            emit=self._overhear,
            connections=settings.gateway.connections,
            confirm_timeout_s=settings.gateway.confirm_timeout_s,
            on_report=self._on_report,
            rights=rights,
            refused=self._refused,
            unconfirmed=window.LIMIT,
        )
        self._api = Api(
            asker=self._requester,
            registry=self._registry,
            backlogs=self._backlogs,
            rules=rules_of(settings),
            emit=emit,
            status=self.status,
            about=server_metadata_json("modelmq", version("modelmq")),
        )
        self._server = HttpServer(self._api.handle, _limits(settings))

    @property
    def in_flight(self) -> int:
        """Requests under way."""
        return len(self._api.waiting)

    @property
    def pages(self) -> Handler | None:
        """Answers /metrics, /health/live and /health/ready."""
        return self._api.pages

    @pages.setter
    def pages(self, pages: Handler) -> None:
        self._api.pages = pages

    def status(self) -> tuple[bool, str]:
        """Whether requests can be taken now, and in words."""
        if self._server.draining:
            return False, "it is draining"
        return self._requester.status()

    async def run(self, stop: asyncio.Event, ready: Callable[[], None]) -> None:
        """Serve until `stop`; `ready` is called once, when HTTP is answered and RabbitMQ is there."""
        gateway = self._settings.gateway
        self.port = await self._server.start(gateway.host, gateway.port, "gateway.port")
        tasks = [asyncio.create_task(each) for each in (self._greet_workers(), self._tick())]
        starting = asyncio.create_task(self._until_up(f"http://{gateway.host}:{self.port}", ready))
        stopped = asyncio.create_task(stop.wait())
        try:
            await self._requester.start()
            # The tasks never end by themselves: if one does, its error is a bug that must not idle unnoticed.
            await asyncio.wait([stopped, *tasks], return_when=asyncio.FIRST_COMPLETED)
            self._emit(ServiceStopping(SERVICE, "told to stop" if stop.is_set() else "a task ended"))
            await self._server.drain(gateway.drain_s, after_s=gateway.drain_delay_s)
        finally:
            await self._server.close()
            await self._requester.stop()
            ending = [*tasks, starting, stopped]
            for task in ending:
                task.cancel()
            ended = await asyncio.gather(*ending, return_exceptions=True)
        for error in ended:
            if isinstance(error, Exception):
                raise error

    async def _until_up(self, address: str, ready: Callable[[], None]) -> None:
        await self._requester.up()
        self._emit(ServiceStarted(SERVICE, address))
        ready()

    async def _greet_workers(self) -> None:
        """Once a second, and at once on a new connection, because it has another address to answer to."""
        while True:
            self._greet.clear()
            self._requester.say_hello(self.name)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._greet.wait(), HELLO_INTERVAL_S)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            now_s = self._now_s()
            self._backlogs.tick(now_s)
            for summary in self._api.refusals.due(now_s):
                self._emit(summary)
            if not self._requester.status()[0]:
                # Nobody can be heard: that is no sign that nobody is there.
                self._registry.listening(now_s)
                continue
            for event in self._registry.tick(now_s):
                self._emit(event)
            self._api.waiting.give_up(self._why_given_up, now_s)

    def _why_given_up(self, model: str) -> str | None:
        return self._registry.sentence(model) if self._registry.given_up(model, self._now_s()) else None

    def _on_report(self, body: bytes) -> None:
        report, now_s = decode_report(body), self._now_s()
        self._backlogs.heard(report, self._api.waiting.of, now_s)
        for event in self._registry.heard(report, now_s):
            self._emit(event)

    def _refused(self, request: Request) -> RequestError:
        """The broker did not take it."""
        full = self._backlogs.may_be_full(self._registry.name_of(request.model), request.lane)
        return refused(request) if full else not_taken(request)

    def _overhear(self, event: Event) -> None:
        self._emit(event)
        if type(event) is BrokerConnected:
            self._registry.listening(self._now_s())
        if type(event) in (BrokerConnected, BrokerHandedOver):
            self._greet.set()


async def serve(
    settings: Settings, emit: Emit, stop: asyncio.Event, ready: Callable[[], None], pages: Handler | None = None
) -> None:
    """Run a gateway until `stop` is set; then drain. `ready` is called once. Raises ConfigError."""
    gateway = Gateway(settings, emit)
    if pages is not None:
        gateway.pages = pages
    await gateway.run(stop, ready)


def _limits(settings: Settings) -> Limits:
    gateway = settings.gateway
    most = _BUFFERED_BODIES * gateway.max_body_bytes
    return Limits(
        max_body_bytes=gateway.max_body_bytes,
        max_buffered_bytes=most,
        max_unsent_bytes=most,
        max_connections=gateway.max_connections,
        head_s=gateway.head_timeout_s,
        body_s=gateway.body_timeout_s,
        idle_s=gateway.idle_timeout_s,
    )
