from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from modelmq.client.request import Request
from modelmq.control import LaneReport, ModelReport, WorkerReport
from modelmq.errors import ModelFailed, NotFound
from modelmq.events import Event, RequestAnswered
from modelmq.gateway.admission import Rules
from modelmq.gateway.api import Api
from modelmq.gateway.backlog import Backlogs, QueueLimits
from modelmq.gateway.registry import Registry
from modelmq.http import HttpRequest, HttpResponse
from modelmq.metadata import ModelMetadata, Signature

BODY = b'{"inputs": []}'
JSON = {b"content-type": b"application/json"}


class Answering:
    """The other side of the port, for what does not depend on a broker."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.answer: Callable[[], bytes] = lambda: b'{"model_name":"m"}'

    async def ask(self, request: Request, taken: Callable[[], None]) -> bytes:
        self.requests.append(request)
        answer = self.answer()
        taken()
        return answer


@pytest.fixture
def asker() -> Answering:
    return Answering()


@pytest.fixture
def events() -> list[Event]:
    return []


@pytest.fixture
def registry() -> Registry:
    made = Registry(5.0, time.monotonic())
    known = ModelMetadata("m", "1", Signature("python", (), (), batched=False))
    models = (
        ModelReport("m", "1", "ready", metadata=known),
        ModelReport("ill", "1", "failed", "It does not load."),
    )
    made.heard(WorkerReport("w", "default", models), time.monotonic())
    return made


@pytest.fixture
def state() -> list[tuple[bool, str]]:
    return [(True, "connected")]


@pytest.fixture
async def api(asker: Answering, registry: Registry, events: list[Event], state: list[tuple[bool, str]]) -> Api:
    backlogs = Backlogs(QueueLimits(10_000, 2**30))
    return Api(asker, registry, backlogs, Rules(10, 60.0, 600.0), events.append, lambda: state[-1], b"{}")


def post(target: bytes = b"/v2/models/m/infer", body: bytes = BODY, **headers: str) -> HttpRequest:
    given = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
    return HttpRequest("POST", target, JSON | given, body)


def error_of(response: HttpResponse) -> str:
    return str(msgspec.json.decode(response.body)["error"])


async def test_the_body_goes_to_the_model_as_it_came(api: Api, asker: Answering, events: list[Event]) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    before = time.time()
    response = await api.handle(
        post(b"/v2/models/m/versions/1/infer", x_request_id="r-1", traceparent=trace, inference_timeout_ms="5000")
    )
    assert (response.status, response.body, response.headers) == (
        200,
        b'{"model_name":"m"}',
        (("X-Request-Id", "r-1"),),
    )
    (request,) = asker.requests
    assert (request.model, request.version, request.body) == ("m", "1", BODY)
    assert (request.message_id, request.headers) == ("r-1", {"traceparent": trace})
    assert 5 <= request.deadline_unix_s - before < 6
    (event,) = events
    assert isinstance(event, RequestAnswered)
    assert (event.request_id, event.model, event.version, event.code, event.error) == ("r-1", "m", "1", "ok", "")


@pytest.mark.parametrize(
    ("header", "id_", "name"),
    [("h", "b", "h"), (None, "b", "b"), ("not usable", "b", "b"), (None, None, None), (None, "not usable", None)],
)
async def test_the_callers_own_name_comes_first(
    api: Api, asker: Answering, header: str | None, id_: str | None, name: str | None
) -> None:
    body = msgspec.json.encode({"inputs": []} | ({"id": id_} if id_ else {}))
    headers: dict[str, Any] = {"x_request_id": header} if header else {}
    response = await api.handle(post(body=body, **headers))
    told = dict(response.headers)["X-Request-Id"]
    assert told == asker.requests[0].message_id
    if name is not None:
        assert told == name


async def test_errors_carry_the_name_and_are_told(api: Api, asker: Answering, events: list[Event]) -> None:
    def fail() -> bytes:
        raise ModelFailed("It raised.")

    asker.answer = fail
    response = await api.handle(post(x_request_id="r-1"))
    assert (response.status, error_of(response), response.headers) == (500, "It raised.", (("X-Request-Id", "r-1"),))
    (event,) = events
    assert isinstance(event, RequestAnswered)
    assert (event.code, event.error) == ("failed", "It raised.")


async def test_a_bug_is_a_500_with_a_name_not_an_end(api: Api, asker: Answering, events: list[Event]) -> None:
    asker.answer = lambda: 1 // 0  # type: ignore[return-value]
    response = await api.handle(post())
    assert response.status == 500
    assert "ZeroDivisionError" in error_of(response)
    assert len(events) == 1


async def test_what_is_refused_never_leaves_the_gateway(api: Api, asker: Answering, registry: Registry) -> None:
    registry.why_not["m", None] = "It is closed."
    for request, status in (
        (post(), 503),
        (post(b"/v2/models/x/infer", b"{"), 400),
        (post(b"/v2/models/x/infer", content_type="text/plain"), 415),
        (post(b"/v2/models/x/infer", inference_timeout_ms="soon"), 400),
        (post(b"/v2/models/a.b/infer"), 404),
    ):
        response = await api.handle(request)
        assert response.status == status
        assert error_of(response)
    assert asker.requests == []


async def test_absent_content_type_is_json(api: Api) -> None:
    assert (await api.handle(HttpRequest("POST", b"/v2/models/m/infer", {}, BODY))).status == 200
    assert (await api.handle(post(content_type="application/octet-stream"))).status == 200
    binary = post(content_type="application/octet-stream", inference_header_content_length="14")
    assert (await api.handle(binary)).status == 415
    utf8 = post(content_type="application/json; charset=utf-8", content_encoding="identity")
    assert (await api.handle(utf8)).status == 200


async def test_readiness_follows_workers_and_broker(api: Api, state: list[tuple[bool, str]]) -> None:
    async def get(target: bytes) -> HttpResponse:
        return await api.handle(HttpRequest("GET", target, {}))

    assert (await get(b"/v2/models/m/ready")).body == b'{"name":"m","ready":true}'
    ill = await get(b"/v2/models/ill/ready")
    assert (ill.status, error_of(ill)) == (503, "Model ill version 1 is failed at worker w: It does not load.")
    assert (await get(b"/v2/models/ill")).status == 503
    assert (await get(b"/v2/models/m/versions/2")).status == 404
    assert (await get(b"/v2/models/unheard")).status == 404
    state.append((False, "There is no connection to RabbitMQ"))
    for target in (b"/v2/health/ready", b"/v2/models/m/ready"):
        response = await get(target)
        assert (response.status, error_of(response)) == (
            503,
            "This gateway is not ready: There is no connection to RabbitMQ.",
        )
    for target in (b"/v2/models/unheard", b"/v2/models/unheard/ready"):  # who cannot hear workers cannot tell
        response = await get(target)
        assert (response.status, error_of(response)) == (503, f"This gateway is not ready: {state[-1][1]}.")
    assert (await get(b"/v2/health/live")).status == 200
    assert (await get(b"/v2/models/m")).status == 200


async def test_a_model_is_asked_as_its_owner_says(api: Api, asker: Answering, registry: Registry) -> None:
    signature = Signature("python", (), (), batched=False)
    known = ModelMetadata("pays", "1", signature, idempotent=False, timeout_s=2.0)
    reports = (ModelReport("pays", "1", "ready", metadata=known, routing_key="pay"),)
    registry.heard(WorkerReport("w2", "default", reports), time.monotonic())
    before = time.time()
    for name in (b"m", b"pays", b"pays/versions/1", b"pay", b"pay/versions/1", b"unheard"):
        await api.handle(post(b"/v2/models/%s/infer" % name))
    m, *pays, unheard = asker.requests
    assert m.idempotent
    assert 60 <= m.deadline_unix_s - before < 62
    for each in pays:
        assert not each.idempotent
        assert 2 <= each.deadline_unix_s - before < 4
    assert not unheard.idempotent
    assert 60 <= unheard.deadline_unix_s - before < 62


async def test_who_leaves_is_told_as_cancelled(api: Api, asker: Answering, events: list[Event]) -> None:
    async def ask(request: Request, taken: Callable[[], None]) -> bytes:
        return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]

    asker.ask = ask  # type: ignore[method-assign]
    task = asyncio.create_task(api.handle(post()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    (event,) = events
    assert isinstance(event, RequestAnswered)
    assert event.code == "cancelled"
    assert len(api.waiting) == 0


async def test_pages_are_the_services_and_absent_without_one(api: Api) -> None:
    assert (await api.handle(HttpRequest("GET", b"/metrics", {}))).status == 404

    async def pages(request: HttpRequest) -> HttpResponse:
        return HttpResponse(200, request.target, "text/plain")

    api.pages = pages
    response = await api.handle(HttpRequest("GET", b"/metrics", {b"x-request-id": b"r-1"}))
    assert (response.body, response.headers) == (b"/metrics", (("X-Request-Id", "r-1"),))


async def test_invented_paths_cost_no_memory(api: Api, asker: Answering) -> None:
    def unknown() -> bytes:
        raise NotFound("No.")

    asker.answer = unknown
    for number in range(3000):
        await api.handle(post(b"/v2/models/m%d/infer" % number))
        await api.handle(HttpRequest("GET", b"/nothing/%d" % number, {}))
    assert len(api._routes) <= 1024


async def test_who_would_wait_in_vain_is_refused_and_never_sent(
    api: Api, asker: Answering, events: list[Event]
) -> None:
    models = (ModelReport("m", "1", "ready", capacity_per_s=100.0),)
    lanes = (LaneReport("m", "interactive", 984, 16),)
    api.backlogs.heard(WorkerReport("w", "default", models, lanes), api.waiting.of, time.monotonic())
    refused = await api.handle(post(inference_timeout_ms="2000"))
    assert (refused.status, dict(refused.headers)["retry-after"]) == (429, "9")
    assert asker.requests == []
    assert [event.code for event in events if type(event) is RequestAnswered] == ["overloaded"]
    (told,) = api.refusals.due(time.monotonic() + 2)
    assert (told.model, told.count) == ("m", 1)
    assert (await api.handle(post(inference_timeout_ms="30000"))).status == 200
    assert len(asker.requests) == 1
