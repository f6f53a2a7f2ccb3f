"""A virtual host and users of the test's own, and a proxy that sees and can cut what is asked of RabbitMQ."""

from __future__ import annotations

import http.client
import secrets
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from modelmq.broker.management import Management
from modelmq.broker.node import RunningNode
from modelmq.errors import ProvisionError
from modelmq.settings import BrokerSettings, Settings, TopologySettings


class Proxy(ThreadingHTTPServer):
    """In front of the node's management API. `allowed` is how many writes pass before connections are cut."""

    daemon_threads = True

    def __init__(self, target: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.target = urlsplit(target).netloc
        self.asked: list[tuple[str, str]] = []
        self.allowed: int | None = None
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def writes(self) -> list[tuple[str, str]]:
        return [each for each in self.asked if each[0] != "GET"]

    def passes(self, method: str, path: str) -> bool:
        with self.lock:
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
                admin._send("DELETE", "tidy up", None, "users", user.name)
        with suppress(ProvisionError):
            admin._send("DELETE", "tidy up", None, "vhosts", broker.vhost)


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
