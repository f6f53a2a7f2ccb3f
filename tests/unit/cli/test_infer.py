from __future__ import annotations

import io
import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from modelmq import errors
from modelmq.cli import infer
from modelmq.cli.infer import Question
from modelmq.settings import Settings, load

BODY = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"data":[1]}]}'


class Gateway(ThreadingHTTPServer):
    """Answers every POST with what it was told to, and keeps what it was sent."""

    status = 200
    answer = b'{"model_name":"m","outputs":[]}'

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[tuple[str, str, bytes]] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Gateway

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.asked.append((self.path, self.headers["content-type"], body))
        self.send_response(self.server.status)
        self.send_header("content-length", str(len(self.server.answer)))
        self.end_headers()
        self.wfile.write(self.server.answer)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    with Gateway() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "sample.json").write_bytes(BODY)
    return load("", "f", {}, {"models_dir": str(tmp_path), "gateway.port": 1})


def asked(**values: Any) -> Question:
    return Question(**({"model": "m", "data": None, "url": None, "timeout_s": 10.0} | values))


def test_the_answer_is_printed_as_it_came(
    gateway: Gateway, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    infer.run(settings, asked(url=gateway.url, data='{"inputs":[]}'), {})
    assert capsys.readouterr().out == gateway.answer.decode() + "\n"
    assert gateway.asked == [("/v2/models/m/infer", "application/json", b'{"inputs":[]}')]


def test_a_version_and_odd_names_are_part_of_the_path(gateway: Gateway) -> None:
    infer.over_http(gateway.url + "/", asked(model="a b/7"), BODY)
    assert gateway.asked[0][0] == "/v2/models/a%20b/versions/7/infer"


def test_the_request_comes_from_a_flag_a_file_the_input_or_the_sample(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "q.json").write_bytes(b"file")
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"stdin")))
    assert infer.body_of(asked(data="{}"), tmp_path) == b"{}"
    assert infer.body_of(asked(data=f"@{tmp_path}/q.json"), tmp_path) == b"file"
    assert infer.body_of(asked(data="-"), tmp_path) == b"stdin"
    assert infer.body_of(asked(), tmp_path) == BODY
    assert infer.body_of(asked(model="m/3"), tmp_path) == BODY


def test_without_a_request_it_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(errors.ConfigError, match="--data"):
        infer.body_of(asked(model="other"), tmp_path)
    with pytest.raises(errors.ConfigError, match="cannot be read"):
        infer.body_of(asked(data="@nowhere.json"), tmp_path)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, errors.InvalidRequest),
        (404, errors.NotFound),
        (413, errors.TooLarge),
        (415, errors.Unsupported),
        (429, errors.Overloaded),
        (500, errors.ModelFailed),
        (503, errors.Unavailable),
        (504, errors.Expired),
    ],
)
def test_an_error_is_the_gateways_sentence_and_of_its_kind(
    gateway: Gateway, status: int, error: type[errors.RequestError]
) -> None:
    gateway.status, gateway.answer = status, json.dumps({"error": "because"}).encode()
    with pytest.raises(error, match=r"^because$"):
        infer.over_http(gateway.url, asked(), BODY)


def test_a_gateway_that_is_not_there_is_worth_a_retry(settings: Settings) -> None:
    with pytest.raises(errors.Unavailable, match=r"http://127\.0\.0\.1:1 cannot be asked"):
        infer.run(settings, asked(), {})


def test_the_url_of_the_environment_is_used(gateway: Gateway, settings: Settings) -> None:
    infer.run(settings, asked(), {"MODELMQ_HTTP_URL": gateway.url})
    assert gateway.asked[0][2] == BODY


def test_another_scheme_is_refused(settings: Settings) -> None:
    with pytest.raises(errors.ConfigError, match="ftp"):
        infer.run(settings, asked(url="ftp://x"), {})
