"""A real RabbitMQ for the tests that need one: a private node per session, a virtual host per test.

Tests marked `both_brokers` run twice, on the system's RabbitMQ and on 4.3, where that can be had; those marked
`both_reply_modes` with replies that go directly, and through queues. The fixture `cluster` is three nodes of a file,
whole again before each test; its tests may be marked the same. Every node serves AMQP and the management API
plain and with TLS (`amqps_port`, `secure_management_url`, verified with `ca_file`), and takes certificates of the
fixture `authority` as logins.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import subprocess
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args
from urllib.parse import quote

import hypothesis
import pytest

from modelmq.broker.node import RunningNode
from modelmq.messages import ReplyMode
from tests.authority import Authority
from tests.cluster import Cluster, started_cluster
from tests.nodes import started
from tests.not_tested import hear_not_tested, not_tested, tell_not_tested, write_not_tested

if TYPE_CHECKING:
    from modelmq.amqp import ConnectionOptions


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


def pytest_configure() -> None:
    # Nothing here is timed; how long an example takes is the machine's affair.
    hypothesis.settings.register_profile("untimed", deadline=None)
    hypothesis.settings.load_profile("untimed")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """How many processes `-n auto` is."""
    return len(os.sched_getaffinity(0)) + 3


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if metafunc.definition.get_closest_marker("both_brokers"):
        kind = "cluster" if "cluster" in metafunc.fixturenames else "node"
        metafunc.parametrize(kind, ["system", "4.3"], indirect=True)
    # A file marked as a whole may have tests that ask for no replies.
    if metafunc.definition.get_closest_marker("both_reply_modes") and "reply_mode" in metafunc.fixturenames:
        metafunc.parametrize("reply_mode", get_args(ReplyMode), indirect=True)


def pytest_sessionfinish(session: pytest.Session) -> None:
    tell_not_tested(session.config)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    hear_not_tested(node.config, getattr(node, "workeroutput", {}))


def pytest_unconfigure(config: pytest.Config) -> None:
    write_not_tested(config)


@pytest.fixture
def reply_mode(request: pytest.FixtureRequest) -> ReplyMode:
    """The installation's: the default, or each in turn where the test is marked `both_reply_modes`."""
    mode: ReplyMode = getattr(request, "param", "direct")
    return mode


@pytest.fixture
def node(request: pytest.FixtureRequest) -> RunningNode:
    """The private RabbitMQ of this test: the system's, or each in turn where the test is marked `both_brokers`."""
    running: RunningNode = request.getfixturevalue(
        "node43" if getattr(request, "param", "") == "4.3" else "system_node"
    )
    return running


@pytest.fixture
def home_of_node(request: pytest.FixtureRequest, node: RunningNode) -> Path | None:
    """The RABBITMQ_HOME of `node`, for another one like it; None for the system's."""
    return request.getfixturevalue("home43") if node.version.startswith("4.3.") else None


@pytest.fixture(scope="session")
def system_node(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    """The RabbitMQ of this system. A machine without it fails the tests that need it."""
    with started(tmp_path_factory.mktemp("node"), authority) as running:
        yield running


@pytest.fixture(scope="session")
def node43(authority: Authority, home43: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    """RabbitMQ 4.3. Where it cannot be had the tests are skipped, and the end of the run says so."""
    with started(tmp_path_factory.mktemp("node43"), authority, home43) as running:
        yield running


@pytest.fixture
def cluster(request: pytest.FixtureRequest) -> Cluster:
    """Three nodes of the system's RabbitMQ, or each in turn where the test is marked `both_brokers`; all of them up."""
    whole: Cluster = request.getfixturevalue(
        "cluster43" if getattr(request, "param", "") == "4.3" else "system_cluster"
    )
    whole.restore()
    return whole


# Six idle nodes cost a tenth of a core, so they end with the last test of their file.
@pytest.fixture(scope="module")
def system_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three nodes of the system's RabbitMQ, in whatever state the test before left them."""
    with started_cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def cluster43(home43: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The same of RabbitMQ 4.3."""
    with started_cluster(tmp_path_factory.mktemp("cluster43"), home43) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def home43(pytestconfig: pytest.Config) -> Path:
    """The folder of RabbitMQ 4.3, to be given as RABBITMQ_HOME; skips as `node43` does."""
    command = [str(Path(__file__).parents[1] / "tools" / "rabbitmq43.sh"), "where"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode != 0:
        not_tested(pytestconfig, "RabbitMQ 4.3", done.stderr.strip())
    return Path(done.stdout.strip())


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Who signed the nodes' certificates, and signs those of clients."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
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
