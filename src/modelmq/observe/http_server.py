"""Serves an ASGI application inside a loop that is already running, on the project's own HTTP server.

Used for a worker's health port; `as_handler` also lets the gateway mount such an application beside its API. Carries
whole bodies only, which is all that the health pages need.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from urllib.parse import unquote

from modelmq.http import Handler, HttpRequest, HttpResponse, HttpServer, Limits
from modelmq.observe.health import Asgi, Message

_LIMITS = Limits(
    max_body_bytes=65_536,
    max_buffered_bytes=1_048_576,
    max_unsent_bytes=33_554_432,
    max_connections=64,
    idle_s=15.0,
    backlog=128,
)


@contextlib.asynccontextmanager
async def serve_http(app: Asgi, host: str, port: int, *, setting: str = "worker.health_port") -> AsyncIterator[int]:
    """Serve until the block ends; gives the port, which matters where `port` is 0.

    Raises ConfigError, naming `setting`, when the address cannot be listened on.
    """
    server = HttpServer(as_handler(app), _LIMITS)
    bound = await server.start(host, port, setting)
    try:
        yield bound
    finally:
        await server.close()


def as_handler(app: Asgi) -> Handler:
    """The application as a handler of the HTTP server."""

    async def handle(request: HttpRequest) -> HttpResponse:
        raw_path, _, query = request.target.partition(b"?")
        scope: Message = {
            "type": "http",
            # The server leaves out the body itself, and must know its length.
            "method": "GET" if request.method == "HEAD" else request.method,
            "path": unquote(raw_path.decode("latin-1")),
            "query_string": query,
            "headers": list(request.headers.items()),
        }
        response = HttpResponse(500, b"")
        chunks: list[bytes] = []

        async def receive() -> Message:
            return {"type": "http.request", "body": request.body, "more_body": False}

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                response.status = message["status"]
                fields = [(name.decode(), value.decode()) for name, value in message["headers"]]
                response.content_type = dict(fields).get("content-type", response.content_type)
                response.headers = tuple(each for each in fields if each[0] not in ("content-type", "content-length"))
            else:
                chunks.append(message.get("body", b""))

        await app(scope, receive, send)
        response.body = b"".join(chunks)
        return response

    return handle
