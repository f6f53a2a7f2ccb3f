"""A virtual host and users of the test's own, and a proxy that sees and can cut what is asked of RabbitMQ."""

from __future__ import annotations

import http.client
import json
import secrets
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from typer.testing import CliRunner

from modelmq.broker.management import Management
from modelmq.broker.node import RunningNode
from modelmq.cli.app import app
from modelmq.provision.ownership import parameter_name
from modelmq.settings import BrokerSettings, Settings, TopologySettings


class Proxy(ThreadingHTTPServer):
    """In front of the node's management API. `allowed` is how many writes pass before connections are cut."""

    daemon_threads = True

    def __init__(self, target: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.target = urlsplit(target).netloc
        self.asked: list[tuple[str, str]] = []
        self.allowed: int | None = None
        self.reads: int | None = None
        """How many questions are answered before connections are cut."""
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def writes(self) -> list[tuple[str, str]]:
        return [each for each in self.asked if each[0] != "GET"]

    @property
    def objects_written(self) -> list[tuple[str, str]]:
        """Without the record of what is owned."""
        return [each for each in self.writes if "/global-parameters/" not in each[1]]

    def passes(self, method: str, path: str) -> bool:
        with self.lock:
            if method == "GET" and self.reads is not None:
                if self.reads <= 0:
                    return False
                self.reads -= 1
            if method != "GET" and self.allowed is not None:
                if self.allowed <= 0:
                    return False
                self.allowed -= 1
            self.asked.append((method, path))
            return True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy

    def _forward(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if not self.server.passes(self.command, self.path):
            self.close_connection = True
            return
        headers = {name: value for name, value in self.headers.items() if name.lower() != "accept-encoding"}
        connection = http.client.HTTPConnection(self.server.target, timeout=30)
        try:
            connection.request(self.command, self.path, body, headers)
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        self.send_response(answer.status)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_PUT = do_POST = do_DELETE = _forward  # noqa: N815 - the names http.server calls

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 - its name in http.server
        """Not on standard error."""


@pytest.fixture
def proxy(node: RunningNode) -> Iterator[Proxy]:
    proxy = Proxy(node.management_url)
    thread = threading.Thread(target=proxy.serve_forever, args=(0.05,))
    thread.start()
    yield proxy
    proxy.shutdown()
    thread.join()
    proxy.server_close()


@pytest.fixture
def settings(node: RunningNode, tmp_path: Path) -> Iterator[Settings]:
    """Users are shared by all virtual hosts of a broker, so each test has an environment of its own."""
    environment = f"t{secrets.token_hex(4)}"
    broker = BrokerSettings(
        hosts=(f"127.0.0.1:{node.amqp_port}",),
        vhost=f"ml-{environment}",
        management_url=node.management_url,
        admin_username=node.admin_username,
        admin_password=node.admin_password,
    )
    yield Settings(broker=broker, topology=TopologySettings(environment=environment), state_dir=str(tmp_path / "state"))
    with Management(node.management_url, node.admin_username, node.admin_password) as admin:
        for user in admin.users():
            if user.name.endswith(f".{environment}"):
                admin.delete_user(user.name)
        admin.delete_vhost(broker.vhost)
        admin.delete_global_parameter(parameter_name(broker.vhost))


@pytest.fixture
def admin(node: RunningNode) -> Iterator[Management]:
    """The node's administrator, past the proxy."""
    with Management(node.management_url, node.admin_username, node.admin_password) as management:
        yield management


@pytest.fixture
def through(node: RunningNode, proxy: Proxy) -> Iterator[Management]:
    """The node's administrator, through the proxy."""
    with Management(proxy.url, node.admin_username, node.admin_password) as management:
        yield management


@dataclass(frozen=True)
class Said:
    """What a command printed, and its status."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True)
class Cli:
    """`modelmq topology …` with the test's settings, and a folder of models to change between two calls."""

    folder: Path
    settings: Settings

    def __call__(self, command: str, *arguments: str) -> Said:
        config = str(self.folder / "modelmq.toml")
        ran = CliRunner().invoke(app, ["topology", command, *arguments, "--config", config])
        assert ran.exception is None or isinstance(ran.exception, SystemExit), ran.exception
        return Said(ran.exit_code, ran.stdout, ran.stderr)

    def serve(self, *models: str) -> None:
        """These models and no others, each `name` or `name/version`."""
        shutil.rmtree(self.folder / "models", ignore_errors=True)
        for model in models:
            name, _, version = model.partition("/")
            folder = self.folder / "models" / name / (version or "1")
            folder.mkdir(parents=True)
            (folder / "model.py").write_text("")

    def configure(self, **broker: object) -> None:
        """The broker section of its settings file, with some of it changed."""
        values = {"hosts": list(self.settings.broker.hosts), "vhost": self.settings.broker.vhost}
        values |= {name: getattr(self.settings.broker, name) for name in ("management_url", "admin_username")}
        values |= {"admin_password_file": str(self.folder / "admin-password")} | broker
        lines = [f"{name} = {json.dumps(value)}" for name, value in values.items()]
        text = "\n".join(
            [
                f"models_dir = {json.dumps(str(self.folder / 'models'))}",
                f"state_dir = {json.dumps(self.settings.state_dir)}",
                f'[topology]\nenvironment = "{self.settings.topology.environment}"\n[broker]',
                *lines,
            ]
        )
        (self.folder / "modelmq.toml").write_text(text + "\n")


@pytest.fixture
def cli(settings: Settings, tmp_path: Path, node: RunningNode) -> Cli:
    """With one model, `digits`."""
    secret = tmp_path / "admin-password"
    secret.touch(0o600)
    secret.write_text(node.admin_password + "\n")
    cli = Cli(tmp_path, settings)
    cli.configure()
    cli.serve("digits")
    return cli


@pytest.fixture
def publish(admin: Management, settings: Settings) -> Callable[[str], None]:
    """Puts a message into a queue of the test's virtual host; it is there when this returns."""

    def publish(queue: str) -> None:
        message = {"properties": {"delivery_mode": 2}, "routing_key": queue, "payload": "kept"}
        message |= {"payload_encoding": "string"}
        admin._send("POST", "publish", message, "exchanges", settings.broker.vhost, "amq.default", "publish")

    return publish
