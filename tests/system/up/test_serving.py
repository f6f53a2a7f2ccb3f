"""A newcomer's `modelmq up` in an empty folder, on a terminal; everything that is printed is tried."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from modelmq.broker.node_config import files_in
from modelmq.broker.node_record import find_record
from tests.system.up.running import Up, plain_environ, starter

PIKA = Path(__file__).parents[3] / "examples" / "clients" / "ask_pika.py"


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    folder = tmp_path_factory.mktemp("newcomer")
    with starter(folder) as start:
        # Every event, so that the logs can be searched for what must not be in them.
        run = start(tty=True, environ={"MODELMQ_LOG_LEVEL": "debug"}).until_serving()
        yield run
        run.interrupt()
        assert run.ended() == 0
        assert run.left() == []
        assert run.text.rstrip().endswith("stopped")
        with pytest.raises(httpx.ConnectError):
            run.ask()


def shell(up: Up, script: str) -> str:
    return subprocess.run(
        ["sh", "-euc", script],
        cwd=up.folder,
        env=plain_environ(),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout


def test_it_shows_a_real_answer(up: Up) -> None:
    found = re.search(r"Asked the model digits: label: (\d).*the data set says (\d)\)", up.text)
    assert found, up.text
    assert found[1] == found[2]


def test_what_it_prints_is_short_and_calm(up: Up) -> None:
    lines = up.until_serving().text.splitlines()
    assert len(lines) < 25
    marks = [line[0] for line in lines if line and line[0] in "✓·!…"]
    assert "".join(marks) == "…✓✓✓✓", up.text
    assert "Traceback" not in up.text


def test_the_line_to_repeat_the_question_works_as_it_stands(up: Up) -> None:
    (line,) = (line for line in up.text.splitlines() if line.startswith("    curl"))
    answer = json.loads(shell(up, line))
    assert answer["model_name"] == "digits"
    assert f"label: {answer['outputs'][0]['data'][0]};" in up.text


def test_the_commands_it_names_work(up: Up) -> None:
    (status,) = re.findall(r"Status +(.+)", up.text)
    assert "worker-default-1" in shell(up, status)
    assert httpx.get(f"{up.url}/v2", trust_env=False).json()["name"] == "modelmq"


def test_status_says_that_all_is_well(up: Up) -> None:
    text = up.command("status")
    for word in (
        "gateway",
        "rabbitmq",
        "worker-default-1",
        "digits",
        "breast-cancer",
        "sentiment",
        "ml-model.digits.bulk",
    ):
        assert word in text
    assert "!" not in text
    found = json.loads(up.command("status", "-o", "json"))
    assert found["problems"] == []
    assert found["gateway"]["state"] == "ready"
    assert {model["name"]: model["ready"] for model in found["models"]} == dict.fromkeys(
        ("digits", "breast-cancer", "sentiment"), True
    )
    assert {service["name"] for service in found["services"]} >= {"gateway", "worker-default-1"}


def test_status_shows_who_consumes(up: Up) -> None:
    consumers: dict[str, int] = {}
    deadline = time.monotonic() + 30  # RabbitMQ counts every five seconds
    while set(consumers.values()) != {1} and time.monotonic() < deadline:
        queues = json.loads(up.command("status", "-o", "json"))["queues"]
        consumers = {each["name"]: each["consumers"] for each in queues if each["name"].startswith("ml-model.")}
    assert consumers == {f"ml-model.{name}": 1 for name in (
        "breast-cancer.bulk", "breast-cancer.interactive", "digits.bulk", "digits.interactive",
        "sentiment.bulk", "sentiment.interactive",
    )}  # fmt: skip


def test_env_gives_a_shell_what_other_programs_need(up: Up) -> None:
    modelmq = f"{shlex.quote(sys.executable)} -m modelmq"
    ask = f'eval "$({modelmq} env)"; curl -fsS "$MODELMQ_HTTP_URL/v2/models/digits"; echo; {sys.executable} {PIKA}'
    metadata, _, answer = shell(up, ask).partition("\n")
    assert json.loads(metadata)["name"] == "digits"
    assert "0" in answer
    # A program that inherits these lines may be modelmq itself.
    assert '"sentiment"' in shell(up, f'eval "$({modelmq} env)"; {modelmq} infer sentiment')


def test_infer_asks_over_http_and_over_amqp(up: Up) -> None:
    over_http = json.loads(up.command("infer", "digits"))
    url = re.findall(r"MODELMQ_AMQP_URL=(.+)", up.command("env"))[0].strip("'")
    over_amqp = json.loads(up.command("infer", "digits/1", "--url", url))
    assert over_http["outputs"] == over_amqp["outputs"]
    assert "nosuch" in up.command("infer", "nosuch", "--data", '{"inputs": []}', status=3)
    assert "x" in up.command("infer", "digits", "--data", '{"inputs": []}', status=3)


def test_the_topology_is_as_it_should_be(up: Up) -> None:
    assert up.command("topology", "apply") == "Nothing to change.\n"
    assert json.loads(up.command("topology", "apply", "-o", "json")) == {"vhost": "ml-dev", "changes": [], "kept": []}


def test_its_broker_is_its_own_to_stop(up: Up) -> None:
    assert "AMQP" in up.command("broker", "start")
    assert f"modelmq up (process {up.pid}) uses this RabbitMQ" in up.command("broker", "stop", status=1)


def test_a_second_one_in_the_folder_is_told_of_the_first(up: Up) -> None:
    words = up.command("up", "--port", "0", status=1)
    assert f"already (process {up.pid}): stop it there, or choose another --state-dir." in words
    assert len(words.splitlines()) == 1
    assert up.ask("nosuch").status_code == 404


def test_each_service_has_its_pages(up: Up) -> None:
    worker = log_lines(up, "worker-default-1", "ServiceStarted")[0]["address"]
    for url, metric in ((up.url, "modelmq_requests_total"), (worker, "modelmq_outcomes_total")):
        assert httpx.get(f"{url}/health/live", trust_env=False).json() == {"live": True}
        assert httpx.get(f"{url}/health/ready", trust_env=False).json()["ready"] is True
        assert f"{metric}{{" in httpx.get(f"{url}/metrics", trust_env=False).text


def test_a_request_can_be_followed_through_the_logs(up: Up) -> None:
    sample = (up.state / "models" / "digits" / "sample.json").read_bytes()
    headers = {"content-type": "application/json", "x-request-id": "follow-me-1"}
    url = f"{up.url}/v2/models/digits/infer"
    assert httpx.post(url, content=sample, headers=headers, trust_env=False).headers["x-request-id"] == "follow-me-1"
    (line,) = log_lines(up, "gateway", "RequestAnswered", request_id="follow-me-1")
    assert (line["model"], line["code"]) == ("digits", "ok")
    wrong = {"content-type": "application/json", "x-request-id": "follow-me-2"}
    assert httpx.post(url, content=b'{"inputs": []}', headers=wrong, trust_env=False).status_code == 400
    assert log_lines(up, "gateway", "RequestAnswered", request_id="follow-me-2")[0]["code"] == "invalid"
    refused = [line for line in log_lines(up, "worker-default-1") if line.get("request_id") == "follow-me-2"]
    assert [line["code"] for line in refused] == ["invalid"]


def test_no_secret_can_be_seen(up: Up) -> None:
    record = find_record(files_in(up.state / "node"))
    assert record is not None
    kept = [up.state / "node" / ".erlang.cookie", *(up.state / "secrets").iterdir()]
    hidden = [record.password, *(path.read_text().strip() for path in kept)]
    assert len(hidden) >= 6
    assert all(len(each) > 20 for each in hidden)
    for path in (up.state, *up.state.rglob("*")):
        if path in kept or path == up.state / "node":
            assert path.stat().st_mode & 0o077 == 0
    logs = [path for path in up.state.rglob("*") if path.suffix in (".log", ".1", ".txt") or "log" in path.parts[-2]]
    texts = [up.text, *(path.read_text("utf-8", "replace") for path in logs if path.is_file())]
    assert len(texts) > 3
    for process in psutil.process_iter():
        try:
            texts.append(" ".join(process.cmdline()))
            if process.pid in {found.pid for found in up.left()}:
                texts.append(str(process.environ()))
        except psutil.Error:
            continue
    assert not any(each in text for each in hidden for text in texts)


def log_lines(up: Up, service: str, event: str = "", **fields: str) -> list[dict[str, str]]:
    """The lines of a service's log that have these values; every line must be one of JSON."""
    text = (up.state / "logs" / f"{service}.log").read_text()
    lines = [json.loads(line) for line in text.splitlines() if not line.startswith("--- started")]
    wanted = {"event": event, **fields} if event else fields
    return [line for line in lines if wanted.items() <= line.items()]
