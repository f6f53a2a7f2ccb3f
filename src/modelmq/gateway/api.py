"""The API: what each route answers, and the way of one inference request from its body to its answer.

Handler of the HTTP server. Decodes only the request's envelope and sends the body on as it is; the worker checks the
tensors, because other producers bypass this gateway. Knows no sockets and no broker.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Final, Protocol

import msgspec

from modelmq.client.request import Request
from modelmq.errors import ModelFailed, NotFound, Overloaded, RequestError, Unavailable, Unsupported
from modelmq.events import Emit, RequestAnswered
from modelmq.gateway import request_id
from modelmq.gateway.admission import Rules, admit, in_time, timeout_s
from modelmq.gateway.backlog import Backlogs
from modelmq.gateway.refusals import Refusals
from modelmq.gateway.registry import UNKNOWN, Registry
from modelmq.gateway.routes import Route, resolve
from modelmq.gateway.statuses import refusal
from modelmq.gateway.waiting import Waiting
from modelmq.http import Handler, HttpRequest, HttpResponse, json_error
from modelmq.messages import JSON
from modelmq.protocol import decode_envelope, model_metadata_json
from modelmq.protocol.content_type import require_json

_BINARY_HEADER = b"inference-header-content-length"
_OCTETS = b"application/octet-stream"
"""What HTTP libraries say of bytes of which they are told nothing, Triton's asyncio client among them: without a
header length such a body is JSON."""
_TIMEOUT_HEADER = b"inference-timeout-ms"
_LANE: Final = "interactive"
_MOST_ROUTES = 1024
_LIVE = b'{"live":true,"ready":true}'

_now_s = time.monotonic


class Asker(Protocol):
    """Who sends requests to the models; the requester of `modelmq.client` is one."""

    async def ask(self, request: Request, taken: Callable[[], None]) -> bytes:
        """The body of the model's response. Raises RequestError; cancelling it withdraws the request.

        `taken` is called unless it is refused at once.
        """
        ...


class Api(msgspec.Struct):
    """Made by the service; called by the HTTP server with each request."""

    asker: Asker
    registry: Registry
    backlogs: Backlogs
    rules: Rules
    emit: Emit
    status: Callable[[], tuple[bool, str]]
    about: bytes
    """The body of `GET /v2`."""
    pages: Handler | None = None
    refusals: Refusals = msgspec.field(default_factory=lambda: Refusals(_now_s()))
    waiting: Waiting = msgspec.field(default_factory=Waiting)
    make_id: Callable[[], str] = msgspec.field(default_factory=request_id.maker)
    _routes: dict[bytes, Route] = {}

    async def handle(self, request: HttpRequest) -> HttpResponse:
        """The answer to any request at all."""
        route = self._routes.get(request.target)
        if route is None:
            route = self._route(request.target)
        if route.kind == "infer" and request.method == "POST":
            return await self._infer(request, route)
        response = await self._look(request, route)
        given = request_id.usable(_text(request.headers.get(b"x-request-id")))
        if given is not None:
            response.headers = (*response.headers, (request_id.HEADER, given))
        return response

    def _route(self, target: bytes) -> Route:
        route = resolve(target)
        if route.kind != "nothing" and len(target) < 512:
            if len(self._routes) >= _MOST_ROUTES:
                self._routes.clear()
            self._routes[target] = route
        return route

    # What can be looked up

    async def _look(self, request: HttpRequest, route: Route) -> HttpResponse:
        if route.kind == "page" and self.pages is not None:
            return await self.pages(request)
        if route.kind in ("nothing", "page"):
            return json_error(404, route.error or "There is no such page here.")
        if request.method not in route.methods:
            allowed = ", ".join(route.methods)
            shown = request.target[:80].decode("latin-1")
            return json_error(405, f"{shown} takes {allowed}, not {request.method}.", ("allow", allowed))
        try:
            return HttpResponse(200, self._answer(route))
        except RequestError as error:
            return refusal(error)

    def _answer(self, route: Route) -> bytes:
        match route.kind:
            case "live":
                return _LIVE
            case "ready":
                ready, words = self.status()
                if not ready:
                    raise Unavailable(f"This gateway is not ready: {words}.")
                return _LIVE
            case "server":
                return self.about
            case "model":
                return self._metadata(route)
            case _:
                return self._model_ready(route)

    def _metadata(self, route: Route) -> bytes:
        view = self.registry.find(route.model, route.version)
        if view is None:
            raise self._unknown(route)
        if view.metadata is None:
            raise Unavailable(self.registry.sentence(route.model, route.version))
        return model_metadata_json(view.metadata, self.registry.versions(route.model))

    def _model_ready(self, route: Route) -> bytes:
        view = self.registry.find(route.model, route.version)
        if view is None:
            raise self._unknown(route)
        connected, words = self.status()
        if not connected:
            raise Unavailable(f"This gateway is not ready: {words}.")
        if not view.ready:
            raise Unavailable(self.registry.sentence(route.model, route.version))
        return msgspec.json.encode({"name": view.name, "ready": True})

    def _unknown(self, route: Route) -> RequestError:
        """Of a model nobody has told of; while workers cannot be heard, that says nothing about the model."""
        connected, words = self.status()
        if not connected:
            return Unavailable(f"This gateway is not ready: {words}.")
        versions = self.registry.versions(route.model)
        if versions:
            return NotFound(f"Model {route.model} has no version {route.version}; it has {', '.join(versions)}.")
        return NotFound(f"No worker has announced a model {route.model} to this gateway.")

    # The way of one request

    async def _infer(self, request: HttpRequest, route: Route) -> HttpResponse:
        began_s = _now_s()
        headers = request.headers
        name = request_id.usable(_text(headers.get(b"x-request-id"))) or ""
        try:
            model = self.registry.name_of(route.model)
            waiting = self.waiting
            admit(len(waiting), waiting.of(model), self.registry.why_not.get(route.key), self.rules)
            _check_type(headers)
            envelope = decode_envelope(request.body)
            if not name:
                name = request_id.usable(envelope.id) or self.make_id()
            handling = self.registry.handling.get(route.key, UNKNOWN)
            wait_s = timeout_s(envelope.parameters, headers.get(_TIMEOUT_HEADER), handling.timeout_s, self.rules)
            in_time(model, self.backlogs.wait_s(model, _LANE, began_s), wait_s)
            question = Request(
                model=model,
                body=request.body,
                deadline_unix_s=time.time() + wait_s,
                version=route.version,
                content_type=JSON,
                message_id=name,
                headers=request_id.trace_headers(headers),
                idempotent=handling.idempotent,
                bundle_limit=self.registry.bundle_limit.get(route.key, 1),
            )
            taken = partial(self.backlogs.sent, model, _LANE, len(request.body), began_s)
            body = await waiting.until(self.asker.ask(question, taken), model, began_s)
        except RequestError as error:
            return self._refused(route, name or self.make_id(), began_s, error)
        except asyncio.CancelledError:
            self._tell(route, name, began_s, "cancelled", "The client went away, or this gateway stopped.")
            raise
        except Exception as error:
            return self._refused(route, name or self.make_id(), began_s, _bug(error))
        self._tell(route, name, began_s, "ok")
        return HttpResponse(200, body, headers=((request_id.HEADER, name),))

    def _refused(self, route: Route, name: str, began_s: float, error: RequestError) -> HttpResponse:
        self._tell(route, name, began_s, error.code, error.message)
        if type(error) is Overloaded:
            self.refusals.add(self.registry.name_of(route.model), error.message)
        return refusal(error, (request_id.HEADER, name))

    def _tell(self, route: Route, name: str, began_s: float, code: str, error: str = "") -> None:
        model = self.registry.name_of(route.model)
        self.emit(RequestAnswered(name, model, route.version or "", code, _now_s() - began_s, error))


def _bug(error: Exception) -> ModelFailed:
    return ModelFailed(f"This gateway failed to answer the request: {error!r}.")


def _check_type(headers: dict[bytes, bytes]) -> None:
    content_type = headers.get(b"content-type")
    if content_type == b"application/json" and _BINARY_HEADER not in headers and b"content-encoding" not in headers:
        return
    if _BINARY_HEADER in headers or content_type != _OCTETS:
        binary = {_BINARY_HEADER.decode(): ""} if _BINARY_HEADER in headers else None
        require_json(_text(content_type), binary)
    encoding = _text(headers.get(b"content-encoding"))
    if encoding not in (None, "", "identity"):
        raise Unsupported(f"Content-Encoding {encoding[:40]!a} is not supported; send the JSON as it is.")


def _text(value: bytes | None) -> str | None:
    return value.decode("latin-1") if value is not None else None
