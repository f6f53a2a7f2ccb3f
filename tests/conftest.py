"""A real RabbitMQ for the tests that need one: a private node per session, a virtual host per test."""

from __future__ import annotations

import base64
import json
import secrets
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from modelmq.broker.node import NodeSpec, RunningNode, start

if TYPE_CHECKING:
    from modelmq.amqp import ConnectionOptions

# A session that is killed cannot end its node; this process sees its pipe close, and does.
_WATCH = """
import pathlib, sys
sys.stdin.read()
from modelmq.broker import node
node.stop(pathlib.Path(sys.argv[1]))
"""


class _Admin:
    """The few management calls the fixtures make, as the node's administrator."""

    def __init__(self, node: RunningNode) -> None:
        token = base64.b64encode(f"{node.admin_username}:{node.admin_password}".encode()).decode()
        self._url = node.management_url
        self._headers = {"Authorization": f"Basic {token}", "Content-Type": "application/json"}
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> None:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self._url}/api/{path}", data, self._headers, method=method)
        with self._opener.open(request, timeout=30) as answer:
            answer.read()


@dataclass(frozen=True)
class Vhost:
    """A virtual host of one test, and a user with all rights in it and no others."""

    name: str
    username: str
    password: str
    node: RunningNode

    @property
    def url(self) -> str:
        return self._url("amqp", "127.0.0.1", self.node.amqp_port)

    @property
    def tls_url(self) -> str:
        """The same through TLS; verify it with `node.ca_file`."""
        return self._url("amqps", "localhost", self.node.amqps_port)

    def options(self, name: str = "test") -> ConnectionOptions:
        from modelmq.amqp import options_from_url  # noqa: PLC0415 - not all tests with a broker use our client

        return options_from_url(self.url, name=name)

    def _url(self, scheme: str, host: str, port: int) -> str:
        return f"{scheme}://{self.username}:{self.password}@{host}:{port}/{quote(self.name, safe='')}"


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    """A private RabbitMQ with a TLS listener. A machine without RabbitMQ fails the tests that need it."""
    folder = tmp_path_factory.mktemp("node")
    watch = subprocess.Popen([sys.executable, "-c", _WATCH, str(folder)], stdin=subprocess.PIPE, start_new_session=True)
    try:
        running = start(NodeSpec(directory=folder, tls=True))
        try:
            yield running
        finally:
            running.stop()
    finally:
        watch.communicate(timeout=60)


@pytest.fixture(scope="session")
def _admin(node: RunningNode) -> _Admin:
    return _Admin(node)


@pytest.fixture
def vhost(node: RunningNode, _admin: _Admin) -> Iterator[Vhost]:
    """A fresh virtual host, gone after the test with all that is in it."""
    name = f"test-{secrets.token_hex(4)}"
    vhost = Vhost(name=name, username=name, password=secrets.token_urlsafe(12), node=node)
    _admin.call("PUT", f"vhosts/{name}", {})
    _admin.call("PUT", f"users/{name}", {"password": vhost.password, "tags": ""})
    _admin.call("PUT", f"permissions/{name}/{name}", {"configure": ".*", "write": ".*", "read": ".*"})
    yield vhost
    _admin.call("DELETE", f"vhosts/{name}")
    _admin.call("DELETE", f"users/{name}")
