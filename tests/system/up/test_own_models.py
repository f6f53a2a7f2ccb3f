"""A user's own folder: what is broken, what is added, the names of the original program, several workers and roles."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import psutil

from tests.system.up.running import HALF, Starter, Up, plain_environ, write_model

ASK = """
import json, sys, uuid, pika
connection = pika.BlockingConnection(pika.URLParameters(sys.argv[1]))
channel, answers = connection.channel(), []
channel.basic_consume("amq.rabbitmq.reply-to", lambda c, m, p, body: answers.append(body), auto_ack=True)
channel.basic_publish("ml-model-exchange", "ml_service", sys.argv[2].encode(),
    pika.BasicProperties(reply_to="amq.rabbitmq.reply-to", correlation_id="1"), mandatory=True)
while not answers:
    connection.process_data_events(1)
connection.close()
print(answers[0].decode())
"""


def test_a_folder_of_ones_own(folder: Path, start: Starter) -> None:
    models = folder / "models"
    write_model(models, "double")
    write_model(models, "broken", "raise RuntimeError('no weights here')")
    write_model(models, "classic", settings='routing_key = "ml_service"\nqueue = "ml-service-queue"\n')
    up = start("--models", "models").until_serving()
    # Named with its file and the reason, while the others are served.
    (problem,) = (line for line in up.text.splitlines() if line.startswith("!"))
    assert str(models / "broken/1/model.py") in problem
    assert "no weights here" in problem
    assert up.ask("double").json()["outputs"][0]["data"] == [42.0]
    assert "broken" in up.command("status", status=1)
    # The names of the original program, from a program that knows nothing of ModelMQ.
    url = up.command("env").split("MODELMQ_AMQP_URL=")[1].strip().strip("'")
    command = [sys.executable, "-c", ASK, url, HALF]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, env=plain_environ())
    assert json.loads(answer.stdout)["outputs"][0]["data"] == [42.0]
    queues = {queue["name"] for queue in json.loads(up.command("status", "-o", "json", status=1))["queues"]}
    assert {"ml-service-queue", "ml-service-queue.bulk"} <= queues
    up.stopped()

    # What is added is provisioned by the next start.
    shutil.rmtree(models / "broken")
    write_model(models, "added")
    up = start("--models", "models").until_serving()
    assert "!" not in up.text
    assert re.search(r"topology +\d+ written: .*\d queue", up.text)
    assert up.ask("added").status_code == 200
    up.stopped()


def test_workers_and_roles_and_a_question_that_is_made_up(folder: Path, own: Callable[..., Up]) -> None:
    write_model(folder / "models", "other")
    (folder / "modelmq.toml").write_text(
        '[topology]\nenvironment = "test"\n[topology.roles]\nfast = ["double"]\nslow = ["other"]\n'
    )
    up = own("--workers", "2").until_serving()
    # The question to repeat is made up where there is none.
    (line,) = (line for line in up.text.splitlines() if line.startswith("    curl"))
    shown = subprocess.run(["sh", "-c", line], cwd=folder, capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(shown.stdout)["outputs"][0]["data"] == [0.0]
    names = {"worker-fast-1", "worker-fast-2", "worker-slow-1", "worker-slow-2"}
    status = msgspec.json.decode(up.command("status", "-o", "json"))
    assert {service["name"] for service in status["services"]} >= {"gateway", *names}
    assert up.ask("double").status_code == 200
    assert up.ask("other").status_code == 200
    children = psutil.Process(up.record("worker-fast-1").process.pid).children()
    assert len(children) == 1  # its own model's, and not the other's
    assert up.command("topology", "apply") == "Nothing to change.\n"
    up.stopped()


def test_flags_of_up_count_for_the_other_commands_and_replies_go_through_queues(own: Callable[..., Up]) -> None:
    """With the rights that each service really has."""
    up = own("--set", "topology.reply_mode=queue", "--set", "topology.environment=prod").until_serving()
    assert up.command("topology", "apply") == "Nothing to change.\n"
    assert up.ask("double").json()["outputs"][0]["data"] == [42.0]
    told = dict(re.findall(r"^export (\w+)=(.*)$", up.command("env"), re.MULTILINE))
    assert told["MODELMQ_REPLY_MODE"] == "queue"
    assert "ml-client.prod:" in told["MODELMQ_AMQP_URL"]
    assert "42.0" in up.command("infer", "double", "--data", HALF)
    url = told["MODELMQ_AMQP_URL"].strip("'")
    assert "42.0" in up.command("infer", "double", "--data", HALF, "--url", url)
    question = up.folder / "question.json"
    question.write_text(HALF)
    example = Path(__file__).parents[3] / "examples" / "clients" / "ask_pika.py"
    environ = {**plain_environ(), "MODELMQ_REPLY_MODE": "queue", "MODELMQ_AMQP_URL": url}
    command = [sys.executable, str(example), "double", str(question)]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, env=environ)
    assert answer.stdout == "y: [42.0]\n"
    up.stopped()
