from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from modelmq.observe import Metrics, health_app


@pytest.fixture
def state() -> list[tuple[bool, str]]:
    return [(True, "serving 2 models")]


@pytest.fixture
async def http(state: list[tuple[bool, str]]) -> AsyncIterator[httpx.AsyncClient]:
    app = health_app(Metrics("worker"), lambda: state[-1])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://worker") as client:
        yield client


async def test_metrics_are_prometheus_text(http: httpx.AsyncClient) -> None:
    answer = await http.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert 'modelmq_service{service="worker"} 1.0' in answer.text


async def test_live_and_ready(http: httpx.AsyncClient, state: list[tuple[bool, str]]) -> None:
    assert (await http.get("/health/live")).json() == {"live": True}
    assert (await http.get("/health/ready")).json() == {"ready": True, "detail": "serving 2 models"}
    state.append((False, "no connection to RabbitMQ"))
    answer = await http.get("/health/ready")
    assert answer.status_code == 503
    assert answer.json() == {"error": "no connection to RabbitMQ"}
    assert (await http.get("/health/live")).status_code == 200


async def test_other_paths_and_methods_are_json_errors(http: httpx.AsyncClient) -> None:
    answer = await http.get("/nowhere")
    assert answer.status_code == 404
    assert "/metrics" in answer.json()["error"]
    answer = await http.post("/metrics")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET, HEAD"
    assert "error" in answer.json()


async def test_head_has_no_body(http: httpx.AsyncClient) -> None:
    answer = await http.head("/metrics")
    assert answer.status_code == 200
    assert answer.content == b""
    assert int(answer.headers["content-length"]) > 100
