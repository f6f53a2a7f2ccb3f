"""`modelmq up` with TLS only: nothing listens in the clear, and whoever connects verifies the broker."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from modelmq.broker import node
from tests.system.up.running import HALF, Up, plain_environ

# Somebody else's client, verifying as the URL and the file say.
ASK = """
import os, pika, ssl
parameters = pika.URLParameters(os.environ["MODELMQ_AMQP_URL"])
context = ssl.create_default_context(cafile=os.environ["MODELMQ_AMQP_CA_FILE"])
parameters.ssl_options = pika.SSLOptions(context, parameters.host)
with pika.BlockingConnection(parameters) as connection:
    channel, answers = connection.channel(), []
    channel.basic_consume("amq.rabbitmq.reply-to", lambda c, m, p, body: answers.append(body), auto_ack=True)
    channel.basic_publish("ml-model-exchange", "double", HALF.encode(),
        pika.BasicProperties(reply_to="amq.rabbitmq.reply-to", correlation_id="1"), mandatory=True)
    while not answers:
        connection.process_data_events(1)
print(answers[0].decode())
"""


@pytest.fixture(params=["system", "4.3"])
def up(request: pytest.FixtureRequest, own: Callable[..., Up]) -> Up:
    home = request.getfixturevalue("home43") if request.param == "4.3" else None
    return own("--set", "broker.tls=true", environ={"RABBITMQ_HOME": str(home)} if home else {}).until_serving()


def test_everything_goes_through_tls_and_is_verified(up: Up, tmp_path: Path) -> None:
    running = node.find(up.state / "node")
    assert running
    assert running.amqp_port == 0
    assert running.management_url.startswith("https://127.0.0.1:")
    assert f"{running.management_url} (management)" in up.text
    assert up.ask().json()["outputs"][0]["data"] == [42.0]

    # The commands find it, each with the authority of the node.
    assert running.management_url in up.command("status")
    assert up.command("topology", "apply", "--models", "models") == "Nothing to change.\n"
    said = up.command("env")
    names = dict(re.findall(r"export (\w+)='?([^'\n]+)'?", said))
    assert names["MODELMQ_AMQP_URL"].startswith("amqps://ml-client:")
    assert names["MODELMQ_AMQP_CA_FILE"] == running.ca_file
    assert '"data":[42.0]' in up.command("infer", "double", "--data", HALF, "--url", names["MODELMQ_AMQP_URL"])

    # Other programs do with what `env` says, also far from the state folder.
    environ = plain_environ() | names
    infer = [sys.executable, "-m", "modelmq", "infer", "double", "--data", HALF, "--url", names["MODELMQ_AMQP_URL"]]
    for command in (infer, [sys.executable, "-c", ASK.replace("HALF", repr(HALF))]):
        answer = subprocess.check_output(command, cwd=tmp_path, env=environ, text=True, timeout=60)
        assert '"data":[42.0]' in answer

    # Nothing of the node serves AMQP or HTTP in the clear.
    machine = psutil.Process(running.pid)
    ports = {each.laddr.port for each in machine.net_connections("tcp") if each.status == psutil.CONN_LISTEN}
    assert len(ports) == 3
    for port in ports:
        for hello in (b"AMQP\x00\x00\x09\x01", b"GET /api/overview HTTP/1.0\r\n\r\n"):
            answer = answered(port, hello)
            assert not answer.startswith((b"\x01\x00\x00", b"HTTP/1.0 ", b"HTTP/1.1 4", b"HTTP/1.1 2")), (port, answer)
    up.stopped()


def test_logins_by_certificate_are_for_brokers_of_ones_own(own: Callable[..., Up]) -> None:
    settings = ("broker.tls=true", "broker.auth=external", "broker.cert_file=c", "broker.key_file=k")
    up = own(*(word for each in settings for word in ("--set", each)))
    assert up.ended() == 2
    assert "broker.auth: the private RabbitMQ takes passwords only" in up.text
    assert not (up.state / "node").exists()


def answered(port: int, hello: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as link:
        try:
            link.sendall(hello)
            with suppress(OSError):  # who speaks no TLS may have been sent away already
                link.shutdown(socket.SHUT_WR)
            return link.recv(100)
        except ConnectionError:
            return b""
