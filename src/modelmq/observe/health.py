"""The pages every service serves: /metrics, /health/live and /health/ready, as a bare ASGI application.

Served alone by a worker, mounted beside the API by the gateway. Does not know what ready means: it asks.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import msgspec

from modelmq.observe.metrics import METRICS_CONTENT_TYPE, Metrics

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Asgi = Callable[[Message, Receive, Send], Awaitable[None]]
Ready = Callable[[], tuple[bool, str]]
"""Whether the service can do its work now, and in words what is wrong or going on."""

_JSON = "application/json"
Answer = tuple[int, str, bytes]


def health_app(metrics: Metrics, ready: Ready) -> Asgi:
    """Answers GET and HEAD on its three paths; not ready is 503 with `{"error": …}`, and so are 404 and 405."""

    def health() -> Answer:
        is_ready, words = ready()
        if is_ready:
            return _json(200, {"ready": True, "detail": words})
        return _json(503, {"error": words or "not ready"})

    pages: dict[str, Callable[[], Answer]] = {
        "/metrics": lambda: (200, METRICS_CONTENT_TYPE, metrics.render()),
        "/health/live": lambda: _json(200, {"live": True}),
        "/health/ready": health,
    }

    async def app(scope: Message, receive: Receive, send: Send) -> None:  # noqa: ARG001 - requests here have no body
        if scope["type"] != "http":
            return
        path, method = scope["path"], scope["method"]
        page = pages.get(path)
        if page is None:
            known = ", ".join(pages)
            await _answer(send, method, _json(404, {"error": f"There is no {path} here; there are {known}."}))
        elif method not in ("GET", "HEAD"):
            refusal = _json(405, {"error": f"{path} takes GET and HEAD, not {method}."})
            await _answer(send, method, refusal, (b"allow", b"GET, HEAD"))
        else:
            await _answer(send, method, page())

    return app


def _json(status: int, content: dict[str, object]) -> Answer:
    return status, _JSON, msgspec.json.encode(content)


async def _answer(send: Send, method: str, answer: Answer, *headers: tuple[bytes, bytes]) -> None:
    status, content_type, body = answer
    head = [(b"content-type", content_type.encode()), (b"content-length", str(len(body)).encode()), *headers]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": b"" if method == "HEAD" else body})
