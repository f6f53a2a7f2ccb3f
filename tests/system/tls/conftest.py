"""A node that serves with whatever certificate a test needs, and the two ways to reach it: AMQP and management."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from modelmq.amqp import connect, options_from_url
from modelmq.broker import node_record
from modelmq.broker.management import Management
from modelmq.broker.node import RunningNode
from modelmq.broker.node_config import files_in
from modelmq.errors import ModelMQError
from modelmq.tls import TlsOptions
from tests.authority import Issued

# The node keeps what it has read of a certificate's file for some minutes.
_FORGET = 'rpc:call(list_to_atom(os:getenv("RABBITMQ_NODENAME")), ssl, clear_pem_cache, [], 10000), halt().'

Reach = Callable[..., str]


@pytest.fixture
def serve_with(node: RunningNode) -> Iterator[Callable[[Issued], None]]:
    """The node shows this certificate on its TLS listeners, until the end of the test."""
    files = files_in(node.directory)
    usual = {path: path.read_bytes() for path in (files.certificate, files.key)}

    def show(certificate: bytes, key: bytes) -> None:
        node_record.write_private(files.certificate, certificate)
        node_record.write_private(files.key, key)
        running = node_record.load_running(files)
        assert running
        pairs = Path(f"/proc/{node.pid}/environ").read_bytes().rstrip(b"\0").split(b"\0")
        environ = {name.decode(): value.decode() for name, _, value in (pair.partition(b"=") for pair in pairs)}
        command = [running.erl, "-noinput", "-boot", "start_clean", "-hidden", "-sname", "forget@localhost"]
        subprocess.run([*command, "-eval", _FORGET], env=environ, timeout=60, check=True, capture_output=True)

    yield lambda issued: show(Path(issued.cert_file).read_bytes(), Path(issued.key_file).read_bytes())
    show(usual[files.certificate], usual[files.key])


@pytest.fixture(params=["amqp", "management"])
def reach(request: pytest.FixtureRequest, node: RunningNode) -> Reach:
    """`reach(host=…, ca_file=…)` connects with verification on; what it says when it cannot, else nothing."""

    def over_amqp(tls: TlsOptions, host: str, port: int) -> None:
        options = options_from_url(
            f"amqps://{node.admin_username}:{node.admin_password}@{host}:{port or node.amqps_port}", tls=tls
        )

        async def open_and_close() -> None:
            await (await connect(msgspec.structs.replace(options, connect_timeout_s=20.0))).close()

        asyncio.run(open_and_close())

    def over_management(tls: TlsOptions, host: str, port: int) -> None:
        url = f"https://{host}:{port or node.secure_management_url.rpartition(':')[2]}"
        with Management(url, node.admin_username, node.admin_password, tls=tls) as management:
            assert management.whoami().name == node.admin_username

    way = over_amqp if request.param == "amqp" else over_management
    plain_port = node.amqp_port if request.param == "amqp" else int(node.management_url.rpartition(":")[2])

    def reached(*, host: str = "localhost", to_plain_port: bool = False, **files: str) -> str:
        try:
            way(TlsOptions(**{"ca_file": node.ca_file, **files}), host, plain_port if to_plain_port else 0)
        except ModelMQError as error:
            return error.message
        return ""

    return reached
