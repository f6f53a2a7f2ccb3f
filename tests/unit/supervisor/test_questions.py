from __future__ import annotations

import json
import shlex
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from modelmq.errors import ModelMQError
from modelmq.http import HttpRequest, HttpResponse, HttpServer, Limits
from modelmq.supervisor import questions
from modelmq.supervisor.models_ready import await_ready
from modelmq.supervisor.questions import Question

Http = httpx.AsyncClient
SAMPLE = b'{"inputs":[{"name":"x","datatype":"FP64","shape":[1],"data":[1]}],"parameters":{"truth":"four"}}'
INPUTS = [
    {"name": "x", "datatype": "FP32", "shape": [-1, 2]},
    {"name": "text", "datatype": "BYTES", "shape": [-1]},
]


class Gateway:
    """Answers as it was told to, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self.not_ready: dict[str, list[str]] = {}
        self.inputs: list[dict[str, Any]] = INPUTS
        self.status = 200
        self.answer: dict[str, Any] = {"outputs": [{"name": "label", "shape": [1], "datatype": "INT64", "data": [4]}]}

    async def handle(self, request: HttpRequest) -> HttpResponse:
        match request.target.decode().removeprefix("/v2/models/").split("/"):
            case [_, "infer"]:
                self.asked.append(request.body)
                return _json(self.answer, self.status)
            case [model, "ready"]:
                return self.ready(model)
            case _:
                return _json({"name": "m", "inputs": self.inputs, "outputs": []})

    def ready(self, model: str) -> HttpResponse:
        """Each question gets the next sentence, the last one for ever; an empty one means ready."""
        said = self.not_ready.get(model, [""])
        sentence = said.pop(0) if len(said) > 1 else said[0]
        return _json({"error": sentence}, 503) if sentence else _json({"ready": True})


def _json(value: dict[str, Any], status: int = 200) -> HttpResponse:
    return HttpResponse(status, json.dumps(value).encode())


@pytest.fixture
def gateway() -> Gateway:
    return Gateway()


@pytest.fixture
async def http(gateway: Gateway) -> AsyncIterator[Http]:
    server = HttpServer(gateway.handle, Limits(max_body_bytes=1_000_000))
    port = await server.start("127.0.0.1", 0, "port")
    try:
        async with Http(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            yield client
    finally:
        await server.close()


async def test_a_models_own_sample_is_asked(http: Http, gateway: Gateway, tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "sample.json").write_bytes(SAMPLE)
    found = await questions.question(http, tmp_path, tmp_path / "questions", "m")
    assert found == Question("m", tmp_path / "m" / "sample.json", SAMPLE, "four")
    asked = await questions.ask(http, found)
    assert (asked.model, asked.answer, asked.truth) == ("m", "label: 4", "four")
    assert gateway.asked == [SAMPLE]
    assert not (tmp_path / "questions").exists()


def test_the_printed_line_sends_the_very_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "my models" / "m" / "sample.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(SAMPLE)
    monkeypatch.chdir(tmp_path)
    words = shlex.split(questions.curl("http://127.0.0.1:8000/v2/models/m/infer", path))
    assert words[0] == "curl"
    assert words[-1] == "http://127.0.0.1:8000/v2/models/m/infer"
    sent = words[words.index("-d") + 1]
    assert sent == "@my models/m/sample.json"
    assert Path(sent[1:]).read_bytes() == SAMPLE


async def test_without_one_it_is_made_of_zeros(http: Http, tmp_path: Path) -> None:
    found = await questions.question(http, tmp_path, tmp_path / "questions", "m")
    assert found is not None
    assert found.path == tmp_path / "questions" / "m.json"
    assert found.path.read_bytes() == found.body
    assert [(each["name"], each["shape"], each["data"]) for each in json.loads(found.body)["inputs"]] == [
        ("x", [1, 2], [0.0, 0.0]),
        ("text", [1], [""]),
    ]


async def test_a_model_that_does_not_say_what_it_takes_is_not_asked(
    http: Http, gateway: Gateway, tmp_path: Path
) -> None:
    gateway.inputs = []
    assert await questions.question(http, tmp_path, tmp_path, "m") is None


async def test_a_bad_answer_is_one_sentence(http: Http, gateway: Gateway, tmp_path: Path) -> None:
    gateway.status, gateway.answer = 500, {"error": "it raised"}
    with pytest.raises(ModelMQError, match=r"q\.json, was answered 500: it raised$"):
        await questions.ask(http, Question("m", tmp_path / "q.json", SAMPLE))


def test_an_answer_is_shortened_to_a_line() -> None:
    outputs = [
        {"name": "label", "data": [4]},
        {"name": "probabilities", "data": [0.123456, 0.5, 1e-9, 0, 0, 0, 0]},
    ]
    text = questions.answer_text(json.dumps({"outputs": outputs}).encode())
    assert text == "label: 4; probabilities: 0.1235, 0.5, 1e-09, 0, 0 …"
    assert questions.answer_text(b"not json") == "not json"
    assert len(questions.answer_text(json.dumps({"outputs": [{"name": "x" * 999, "data": []}]}).encode())) < 310


async def test_models_become_ready_one_after_the_other(http: Http, gateway: Gateway) -> None:
    gateway.not_ready = {"slow": ["loading", "loading", ""]}
    assert await await_ready(http, ("a", "slow"), patience_s=20) == (("a", "slow"), ())


async def test_one_that_is_not_is_told_and_the_others_serve(http: Http, gateway: Gateway) -> None:
    gateway.not_ready = {"broken": ["models/broken/1/model.onnx is no ONNX file."]}
    ready, problems = await await_ready(http, ("a", "broken"), patience_s=0.1)
    assert ready == ("a",)
    assert problems == ("The model broken is not served: models/broken/1/model.onnx is no ONNX file.",)


async def test_no_gateway_is_one_sentence() -> None:
    async with Http(base_url="http://127.0.0.1:1") as http:
        with pytest.raises(ModelMQError, match=r"^The gateway at http://127\.0\.0\.1:1 does not answer"):
            await await_ready(http, ("a",), patience_s=0.1)
