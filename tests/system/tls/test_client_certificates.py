"""A client certificate as the login (SASL EXTERNAL): taken, refused, or not shown; over our client on both brokers."""

from __future__ import annotations

import asyncio
import base64
import json
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

import modelmq
from modelmq.amqp import Connection, ConnectionOptions, connect, options_from_url
from modelmq.broker.node import RunningNode
from modelmq.errors import AccessRefused, BrokerError, ConfigError, ConnectFailed
from modelmq.process import connection_options
from modelmq.settings import BrokerSettings, Settings
from modelmq.tls import TlsOptions
from tests.authority import Authority, Issued
from tests.nodes import started

pytestmark = [pytest.mark.broker, pytest.mark.both_brokers]
PATIENCE_S = 20.0
Opened = Callable[[ConnectionOptions], Any]


@pytest.fixture
async def opened() -> Any:
    connections: list[Connection] = []

    async def made(options: ConnectionOptions) -> Connection:
        connections.append(await connect(options))
        return connections[-1]

    yield made
    for connection in connections:
        await connection.close()


@pytest.fixture
def mine(vhost: Any, authority: Authority) -> Issued:
    """A certificate whose common name is the user of the test."""
    return authority.issue(vhost.username, client=True)


def options(vhost: Any, own: Issued | None, **more: Any) -> ConnectionOptions:
    files = (own.cert_file, own.key_file) if own else ("", "")
    url = f"amqps://localhost:{vhost.node.amqps_port}/{vhost.name}"
    known = {"external": True, "connect_timeout_s": PATIENCE_S, **more}
    return msgspec.structs.replace(options_from_url(url, tls=TlsOptions(vhost.node.ca_file, *files)), **known)


async def connection_of(vhost: Any) -> dict[str, Any]:
    """The only one, once the management knows of it; it hears of connections a moment after they are open."""
    async with asyncio.timeout(PATIENCE_S):
        while not (found := await asyncio.to_thread(connections_of, vhost)):
            pass
    (connection,) = found
    return connection


def connections_of(vhost: Any) -> list[dict[str, Any]]:
    node = vhost.node
    token = base64.b64encode(f"{node.admin_username}:{node.admin_password}".encode()).decode()
    request = urllib.request.Request(f"{node.management_url}/api/vhosts/{vhost.name}/connections")
    request.add_header("Authorization", f"Basic {token}")
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as answer:
        found: list[dict[str, Any]] = json.load(answer)
    return found


async def test_its_common_name_is_the_user(vhost: Any, mine: Issued, opened: Opened) -> None:
    connection = await opened(options(vhost, mine))
    channel = await connection.channel()
    await channel.declare_queue(exclusive=True)
    found = await connection_of(vhost)
    assert (found["user"], found["auth_mechanism"], found["ssl"]) == (vhost.username, "EXTERNAL", True)


async def test_a_client_certificate_and_a_password_go_together(vhost: Any, mine: Issued, opened: Opened) -> None:
    tls = TlsOptions(vhost.node.ca_file, mine.cert_file, mine.key_file)
    await opened(options_from_url(vhost.tls_url, tls=tls))
    found = await connection_of(vhost)
    assert (found["user"], found["auth_mechanism"]) == (vhost.username, "PLAIN")


async def test_services_log_in_by_it_as_their_settings_say(vhost: Any, mine: Issued, opened: Opened) -> None:
    broker = BrokerSettings(
        hosts=(f"localhost:{vhost.node.amqps_port}",), vhost=vhost.name, auth="external",
        tls=True, ca_file=vhost.node.ca_file, cert_file=mine.cert_file, key_file=mine.key_file,
    )  # fmt: skip
    await opened(connection_options(Settings(broker=broker), "ml-gateway", "a-gateway"))
    found = await connection_of(vhost)
    assert (found["user"], found["client_properties"]["connection_name"]) == (vhost.username, "a-gateway")


async def test_the_python_client_needs_no_user_in_its_url(vhost: Any, mine: Issued) -> None:
    url = f"amqps://localhost:{vhost.node.amqps_port}/{vhost.name}"
    files = {"ca_file": vhost.node.ca_file, "cert_file": mine.cert_file, "key_file": mine.key_file}
    async with modelmq.Client(url, **files):
        pass
    with pytest.raises(BrokerError):
        async with modelmq.Client(url, ca_file=vhost.node.ca_file):
            pass


async def test_without_one_there_is_no_such_login(vhost: Any) -> None:
    with pytest.raises(ConfigError, match=r"^A login by client certificate needs cert_file and key_file, and TLS\.$"):
        options(vhost, None)


@pytest.fixture
def demanding(authority: Authority, tmp_path: Path, home_of_node: Path | None) -> Iterator[RunningNode]:
    """A node that lets nobody in without a certificate."""
    extra = "ssl_options.fail_if_no_peer_cert = true"
    with started(tmp_path / "node", authority, home_of_node, extra_conf=extra) as running:
        yield running


async def test_a_broker_that_asks_for_one_says_so(demanding: RunningNode, authority: Authority, opened: Opened) -> None:
    url = f"amqps://{demanding.admin_username}:{demanding.admin_password}@localhost:{demanding.amqps_port}"
    with pytest.raises(ConnectFailed, match="asks for a client certificate; set cert_file and key_file"):
        await connect(options_from_url(url, tls=TlsOptions(demanding.ca_file)))
    own = authority.issue("anybody", client=True)
    await opened(options_from_url(url, tls=TlsOptions(demanding.ca_file, own.cert_file, own.key_file)))


async def test_one_that_names_nobody_is_refused_in_words(vhost: Any, authority: Authority) -> None:
    nobody = authority.issue("nobody-of-that-name", client=True)
    with pytest.raises(AccessRefused, match="refused the user that the client certificate names") as caught:
        await connect(options(vhost, nobody))
    assert caught.value.reply_code == 403


async def test_one_of_another_authority_is_refused_in_words(vhost: Any, tmp_path: Path) -> None:
    own = Authority(tmp_path).issue(vhost.username, client=True)
    with pytest.raises(
        ConnectFailed, match=f"does not know who signed the client certificate {own.cert_file}; get one"
    ):
        await connect(options(vhost, own))


async def test_one_that_has_expired_is_refused_in_words(vhost: Any, authority: Authority) -> None:
    own = authority.issue(vhost.username, client=True, days=(-2, -0.01))
    said = f"refuses the client certificate {own.cert_file}, which has expired; renew it"
    with pytest.raises(ConnectFailed, match=said):
        await connect(options(vhost, own))


async def test_one_for_servers_is_refused_in_words(vhost: Any, authority: Authority) -> None:
    own = authority.issue(vhost.username)
    said = f"does not take the client certificate {own.cert_file}; is it one for clients?"
    with pytest.raises(ConnectFailed) as caught:
        await connect(options(vhost, own))
    assert said in caught.value.message
