"""What the gateway answers over HTTP, with real workers behind a real broker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from modelmq.events import RequestAnswered

from .conftest import Broker, Running, Serve, body_of, until, values_of

pytestmark = pytest.mark.broker
Async = Callable[..., Awaitable[Any]]
Make = Callable[..., None]

TRIPLE = """
    class Model:
        inputs = {"x": ("FP64", [-1])}
        outputs = {"y": ("FP64", [-1])}
        def predict(self, batch):
            return {"y": batch["x"] * 3}
"""
RAISING = """
    class Model:
        inputs = {"x": ("FP64", [-1])}
        outputs = {"y": ("FP64", [-1])}
        def predict(self, batch):
            raise ValueError("too warm today")
"""
TENSOR = '{"name": "x", "datatype": "FP64", "shape": [1], "data": [1]}'


@pytest.mark.both_reply_modes
@pytest.mark.both_brokers
async def test_models_are_described_and_asked_by_version(make_model: Make, serving: Serve) -> None:
    make_model("scale")
    make_model("scale", TRIPLE, version="10")
    make_model("single", toml='queue = "ml-service-queue"\nrouting_key = "ml_service"\n')
    gateway, _ = await serving()
    http = gateway.http
    assert (await gateway.until_status("/v2/models/scale/versions/1/ready", 200)).json() == {
        "name": "scale",
        "ready": True,
    }
    await gateway.until_status("/v2/models/scale/versions/10/ready", 200)
    about = (await http.get("/v2/models/scale")).json()
    assert about == {
        "name": "scale",
        "versions": ["1", "10"],
        "platform": about["platform"],
        "inputs": [{"name": "x", "datatype": "FP64", "shape": [-1]}],
        "outputs": [{"name": "y", "datatype": "FP64", "shape": [-1]}],
    }
    assert (await http.get("/v2/models/scale/versions/1/")).json()["name"] == "scale"

    newest = await gateway.infer("scale", 1, 2)
    assert values_of(newest) == [3, 6]
    assert newest.json()["model_name"] == "scale"
    assert newest.json()["model_version"] == "10"
    assert (await gateway.infer("scale/versions/1", 1, 2)).text == (
        '{"model_name":"scale","model_version":"1","outputs":[{"name":"y","datatype":"FP64","shape":[2],"data":[2.0,4.0]}]}'
    )
    assert values_of(await gateway.infer("%73cale/versions/10", 1)) == [3]
    assert values_of(await http.post("/v2/models/scale/infer/", content=body_of(1))) == [3]

    missing = await gateway.infer("scale/versions/7", 1)
    assert missing.status_code == 404
    assert "version 7" in missing.json()["error"]
    assert (await http.get("/v2/models/scale/versions/7/ready")).json() == {
        "error": "Model scale has no version 7; it has 1, 10."
    }

    # The names of the single-service program reach the same model.
    for name in ("single", "ml_service"):
        await gateway.until_status(f"/v2/models/{name}/ready", 200)
        answer = await gateway.infer(name, 4)
        assert (values_of(answer), answer.json()["model_name"]) == ([8], "single")


async def test_ids_and_trace_go_all_the_way(make_model: Make, serving: Serve) -> None:
    make_model("fails", RAISING)
    gateway, worker = await serving()

    ours = await gateway.infer("fails", 1, headers={"x-request-id": "from-the-caller"})
    assert ours.status_code == 500
    assert "too warm today" in ours.json()["error"]
    assert ours.headers["x-request-id"] == "from-the-caller"
    bodys = await gateway.http.post("/v2/models/fails/infer", content=body_of(1, id="from-the-body"))
    assert bodys.headers["x-request-id"] == "from-the-body"
    made = await gateway.infer("fails", 1, headers={"x-request-id": "has spaces"})
    assert made.headers["x-request-id"] not in ("", "has spaces")

    told = [event.request_id for event in gateway.of(RequestAnswered)]
    assert told == ["from-the-caller", "from-the-body", made.headers["x-request-id"]]
    logged = [line["request_id"] for line in worker.lines() if line["event"] == "RequestFailed"]
    assert logged == told


async def test_bad_input_is_told_to_its_caller_and_harms_nobody(make_model: Make, serving: Serve) -> None:
    make_model("double")
    make_model(
        "two",
        """
        class Model:
            inputs = {"x": ("FP64", [-1, 2]), "n": ("INT32", [-1])}
            outputs = {"y": ("FP64", [-1, 2])}
            def predict(self, batch):
                return {"y": batch["x"]}
    """,
    )
    gateway, _ = await serving()

    def inputs(*tensors: str) -> str:
        return f'{{"inputs": [{", ".join(tensors)}]}}'

    json = {"content-type": "application/json"}
    rows: list[tuple[str, str | bytes, dict[str, str], int, str]] = [
        ("double", "{", json, 400, "not valid JSON"),
        ("double", "", json, 400, "not valid JSON"),
        ("double", b"\xff\xfe", json, 400, "not valid JSON"),
        ("double", "[]", json, 400, "protocol's form"),
        ("double", '{"inputs": 3}', json, 400, "list of tensors"),
        ("double", "{}", json, 400, "inputs"),
        ("double", "[" * 100_000, json, 400, ""),
        ("double", inputs(TENSOR.replace("[1]}", "[NaN]}")), json, 400, "NaN"),
        ("double", inputs(TENSOR.replace("[1]}", "[-Infinity]}")), json, 400, "Infinity"),
        ("double", inputs(TENSOR.replace("FP64", "INT8")), json, 400, "INT8"),
        ("double", inputs(TENSOR.replace("FP64", "FLOAT")), json, 400, "FLOAT"),
        ("double", inputs(TENSOR.replace('"shape": [1]', '"shape": [2]')), json, 400, "2"),
        ("double", inputs(TENSOR.replace('"shape": [1]', '"shape": [-1]')), json, 400, "shape"),
        ("double", inputs(TENSOR.replace('"shape": [1]', '"shape": [4611686018427387904, 4]')), json, 400, "shape"),
        ("double", inputs(TENSOR.replace('"shape": [1]', '"shape": [1, 1]')), json, 400, "shape"),
        ("double", inputs(TENSOR.replace('"x"', '"z"')), json, 400, '"z"'),
        ("double", inputs(TENSOR, TENSOR), json, 400, "twice"),
        ("double", inputs(), json, 400, "x"),
        ("two", inputs(TENSOR.replace('"shape": [1]', '"shape": [1, 2]').replace("[1]}", "[1, 2]}")), json, 400, "n"),
        ("double", '{"inputs": [' + TENSOR + '], "outputs": [{"name": "no"}]}', json, 400, "no"),
        ("double", '{"inputs": [' + TENSOR + '], "parameters": {"timeout": "soon"}}', json, 400, "timeout"),
        ("double", inputs(TENSOR), {**json, "inference-timeout-ms": "-1"}, 400, "Inference-Timeout-Ms"),
        ("double", inputs(TENSOR), {"content-type": "text/csv"}, 415, "text/csv"),
        ("double", "\0\0", {"content-type": "application/octet-stream"}, 400, "JSON"),
        ("double", inputs(TENSOR), {**json, "inference-header-content-length": "5"}, 415, "binary"),
        ("double", inputs(TENSOR), {**json, "content-encoding": "gzip"}, 415, "gzip"),
        ("double", inputs(TENSOR), {"content-type": "application/json; charset=utf-16"}, 415, "utf-16"),
        ("nobody", inputs(TENSOR), json, 404, "nobody"),
        ("double/versions/2", inputs(TENSOR), json, 404, "2"),
        ("double/versions/latest", inputs(TENSOR), json, 404, "latest"),
        ("dou%2Fble", inputs(TENSOR), json, 404, "dou/ble"),
    ]  # fmt: skip
    wrong = []
    for model, body, headers, status, word in rows:
        response = await gateway.http.post(f"/v2/models/{model}/infer", content=body, headers=headers)
        is_error = response.json().keys() == {"error"} and word in response.json()["error"]
        if response.status_code != status or not is_error or response.headers["content-type"] != "application/json":
            wrong.append((body[:200], status, word, response.status_code, response.text))
    assert wrong == []
    assert values_of(await gateway.infer("double", 1)) == [2]


@pytest.mark.both_reply_modes
@pytest.mark.both_brokers
async def test_an_unknown_model_is_404_at_once(start_gateway: Async, declare: Async, broker: Broker) -> None:
    await declare(broker)
    gateway: Running = await start_gateway(broker, worker_grace_s=3600.0)
    response = await gateway.infer("nobody", 1)
    assert response.status_code == 404
    assert (await gateway.http.get("/v2/models/nobody")).status_code == 404
    assert (await gateway.http.get("/v2/models/nobody/ready")).status_code == 404


async def test_a_hundred_megabytes_are_refused_quickly(start_gateway: Async, broker: Broker) -> None:
    gateway: Running = await start_gateway(broker)

    async def chunks() -> Any:
        for _ in range(100):
            yield b"x" * 1_000_000

    for content in (b"x" * 100_000_000, chunks()):
        began = time.monotonic()
        response = await gateway.http.post("/v2/models/m/infer", content=content)
        assert response.status_code == 413
        assert response.json().keys() == {"error"}
        assert time.monotonic() - began < 5
    assert (await gateway.http.get("/v2/health/live")).status_code == 200


async def test_deadlines_of_callers_are_kept(
    make_model: Make, declare: Async, start_gateway: Async, broker: Broker
) -> None:
    """Nobody consumes the queue, so that nothing but the deadline ends the wait."""
    make_model("double")
    await declare(broker)
    gateway: Running = await start_gateway(broker, worker_grace_s=60.0)
    url = "/v2/models/double/infer"
    for content, headers in (
        (body_of(1, parameters={"timeout": 50_000}), {}),
        (body_of(1), {"inference-timeout-ms": "50"}),
        (body_of(1, parameters={"timeout": 60_000_000}), {"inference-timeout-ms": "50"}),
    ):
        began = time.monotonic()
        response = await gateway.http.post(url, content=content, headers=headers)
        assert response.status_code == 504
        assert response.json().keys() == {"error"}
        assert 0.04 < time.monotonic() - began < 5


async def test_requests_above_the_limit_are_refused_at_once(
    make_model: Make, declare: Async, start_gateway: Async, broker: Broker
) -> None:
    make_model("double")
    await declare(broker)
    gateway: Running = await start_gateway(broker, worker_grace_s=60.0, max_in_flight=1)
    url = "/v2/models/double/infer"
    first = asyncio.create_task(gateway.http.post(url, content=body_of(1, parameters={"timeout": 1_000_000})))
    await until(lambda: gateway.gateway.in_flight > 0)
    second = await gateway.infer("double", 1)
    assert (second.status_code, second.headers["retry-after"]) == (429, "1")
    assert (await first).status_code == 504


async def test_the_servers_own_routes(start_gateway: Async, declare: Async, broker: Broker) -> None:
    await declare(broker)
    gateway: Running = await start_gateway(broker)
    http = gateway.http
    for path in ("/v2/health/live", "/v2/health/ready", "/v2/health/ready/?verbose=1"):
        response = await http.get(path)
        assert (response.status_code, response.json()) == (200, {"live": True, "ready": True})
        head = await http.head(path)
        assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", "26")
    for path in ("/v2", "/v2/"):
        assert (await http.get(path)).json().keys() == {"name", "version", "extensions"}
    refused: list[tuple[str, str, int, str | None]] = [
        ("POST", "/v2/health/live", 405, "GET, HEAD"),
        ("GET", "/v2/models/double/infer", 405, "POST"),
        ("DELETE", "/v2/models/double", 405, "GET, HEAD"),
        ("GET", "/", 404, None),
        ("GET", "/v1/models/double:predict", 404, None),
        ("GET", "/v2/models/", 404, None),
        ("GET", "/v2/models/double/versions", 404, None),
        ("POST", "/v2//models/double/infer", 404, None),
    ]
    for method, path, status, allow in refused:
        response = await http.request(method, path)
        assert (response.status_code, response.headers.get("allow")) == (status, allow), path
        assert response.json().keys() == {"error"}


@pytest.mark.both_reply_modes
@pytest.mark.both_brokers
async def test_a_client_that_leaves_withdraws_its_request(
    make_model: Make, declare: Async, start_gateway: Async, broker: Broker
) -> None:
    make_model("double")
    await declare(broker)
    gateway: Running = await start_gateway(broker, worker_grace_s=60.0)
    with pytest.raises(httpx.ReadTimeout):
        await gateway.infer("double", 1, timeout=0.2)
    await gateway.until(lambda: bool(gateway.of(RequestAnswered)))
    assert [event.code for event in gateway.of(RequestAnswered)] == ["cancelled"]
    assert gateway.gateway.in_flight == 0
