"""The Python client, `modelmq infer` over AMQP and the pika example, as a user who may do nothing but ask."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest

import modelmq
from modelmq import errors
from modelmq.amqp import Delivery
from modelmq.cli import infer
from modelmq.cli.infer import Question
from modelmq.messages import ReplyMode
from modelmq.metadata import Signature
from modelmq.protocol import encode_error
from modelmq.protocol.json_codec import decode_request, encode_response
from modelmq.settings import TopologySettings, load
from modelmq.topology import build
from modelmq.topology_names import user_name

pytestmark = pytest.mark.broker

ANY = Signature("test", (), (), batched=False)
PIKA = Path(__file__).parents[3] / "examples" / "clients" / "ask_pika.py"


def double(delivery: Delivery) -> bytes:
    request = decode_request(delivery.body, ANY)
    outputs = {name: array if array.dtype == object else array * 2 for name, array in request.inputs.items()}
    wanted = request.outputs or tuple(outputs)
    return encode_response("echo", "1", request.id, {name: outputs[name] for name in wanted})


@pytest.fixture
async def worker(broker: Any) -> Any:
    await broker.provision()
    broker.respond = double
    await broker.echo()
    return broker


@pytest.fixture
def url_of(vhost: Any, _admin: Any, reply_mode: ReplyMode) -> Iterator[Callable[..., str]]:
    """URLs of a user with exactly the rights that the topology gives to plain clients."""
    (rights,) = (
        permission
        for permission in build(TopologySettings(reply_mode=reply_mode), vhost.name, ()).permissions
        if permission.user == user_name("client", "dev")
    )
    user, password = f"{vhost.name}-client", "pass/word"
    _admin.call("PUT", f"users/{user}", {"password": password, "tags": ""})
    _admin.call(
        "PUT",
        f"permissions/{vhost.name}/{user}",
        {"configure": rights.configure, "write": rights.write, "read": rights.read},
    )

    def url(hosts: str = f"127.0.0.1:{vhost.node.amqp_port}", *, scheme: str = "amqp", password: str = password) -> str:
        return f"{scheme}://{user}:{quote(password, safe='')}@{hosts}/{vhost.name}"

    yield url
    _admin.call("DELETE", f"users/{user}")


@pytest.fixture
def closed_port() -> Iterator[int]:
    with socket.socket() as held:  # bound and not listening: nobody else gets it, and connections are refused
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


@pytest.mark.both_reply_modes
async def test_arrays_go_and_come(worker: Any, url_of: Any, reply_mode: ReplyMode) -> None:
    async with modelmq.Client(url_of(), reply_mode=reply_mode) as client:
        given = {"x": np.array([[1.5, 2.0], [3.0, 4.0]], np.float32), "n": [1, 2], "s": np.array(["é", "b"])}
        outputs = await client.infer("echo", given)
        assert outputs["x"].dtype == np.float32
        assert outputs["x"].tolist() == [[3.0, 4.0], [6.0, 8.0]]
        assert outputs["n"].tolist() == [2, 4]
        assert outputs["s"].tolist() == ["é".encode(), b"b"]
        assert list(await client.infer("echo", given, outputs=["n"], version="1")) == ["n"]
    assert [each.routing_key for each in worker.requests.items] == ["echo", "echo.1"]


@pytest.mark.both_reply_modes
async def test_many_at_a_time_over_several_connections(worker: Any, url_of: Any, reply_mode: ReplyMode) -> None:
    async with modelmq.Client(url_of(), connections=3, reply_mode=reply_mode) as client:
        answers = await asyncio.gather(*(client.infer("echo", {"x": [number]}) for number in range(500)))
    assert [int(each["x"][0]) for each in answers] == [2 * number for number in range(500)]


@pytest.mark.both_reply_modes
async def test_a_timeout_does_not_harm_the_connection(worker: Any, url_of: Any, reply_mode: ReplyMode) -> None:
    """This user may not publish cancels: the broker would close the channel for it."""
    async with modelmq.Client(url_of(), timeout_s=0.1, reply_mode=reply_mode) as client:
        worker.answering = False
        with pytest.raises(errors.Expired):
            await client.infer("echo", {"x": [1]})
        worker.answering = True
        (waiting,) = [asyncio.create_task(client.infer("echo", {"x": [1]}, timeout_s=30))]
        assert (await waiting)["x"].tolist() == [2]


async def test_the_reply_mode_of_another_installation_is_told(worker: Any, url_of: Any) -> None:
    """Here replies go directly, and this user may not bind a queue to the reply exchange."""
    async with modelmq.Client(url_of(), reply_mode="queue") as client:
        with pytest.raises(errors.Unavailable, match=r"No reply queue can be had, .* same topology\.reply_mode .*403"):
            await client.infer("echo", {"x": [1]})
    assert worker.requests.items == []


async def test_errors_are_typed(worker: Any, url_of: Any) -> None:
    async with modelmq.Client(url_of()) as client:
        with pytest.raises(errors.NotFound):
            await client.infer("nobody", {"x": [1]})
        with pytest.raises(errors.InvalidRequest, match="cannot be made an array"):
            await client.infer("echo", {"x": [[1], [1, 2]]})
        for timeout_s in (0, -1, float("inf"), float("nan")):
            with pytest.raises(errors.InvalidRequest, match="timeout_s"):
                await client.infer("echo", {"x": [1]}, timeout_s=timeout_s)
        with pytest.raises(errors.TooLarge):
            await client.infer_json("echo", bytes(15_000_001))
        worker.respond = lambda _: b"no response"
        with pytest.raises(errors.ModelFailed, match="cannot be read"):
            await client.infer("echo", {"x": [1]})


async def test_a_client_that_is_not_open_says_so() -> None:
    with pytest.raises(errors.ConfigError, match="async with"):
        await modelmq.Client("amqp://a:b@127.0.0.1").infer("echo", {"x": [1]})
    with pytest.raises(errors.ConfigError, match="amqp://"):
        modelmq.Client("http://127.0.0.1")
    with pytest.raises(errors.ConfigError, match='reply_mode must be "direct" or "queue", not "both"'):
        modelmq.Client("amqp://127.0.0.1", reply_mode="both")  # type: ignore[arg-type]
    with pytest.raises(errors.ConfigError, match="connections"):
        modelmq.Client("amqp://127.0.0.1", connections=0)


async def test_opening_tells_what_is_wrong(url_of: Any, closed_port: int) -> None:
    with pytest.raises(errors.AccessRefused):
        async with modelmq.Client(url_of(password="wrong")):
            pass
    with pytest.raises(errors.ConnectFailed, match="refused the connection"):
        async with modelmq.Client(url_of(f"127.0.0.1:{closed_port}")):
            pass


async def test_one_of_several_hosts_is_enough(worker: Any, url_of: Any, closed_port: int, vhost: Any) -> None:
    hosts = f"127.0.0.1:{closed_port},127.0.0.1:{vhost.node.amqp_port}"
    async with modelmq.Client(url_of(hosts)) as client:
        assert (await client.infer("echo", {"x": [1]}))["x"].tolist() == [2]


async def test_tls_is_verified(worker: Any, url_of: Any, vhost: Any) -> None:
    url = url_of(f"localhost:{vhost.node.amqps_port}", scheme="amqps")
    async with modelmq.Client(url, ca_file=vhost.node.ca_file) as client:
        assert (await client.infer("echo", {"x": [1]}))["x"].tolist() == [2]
    with pytest.raises(errors.ConnectFailed, match="not trusted"):
        async with modelmq.Client(url):
            pass


@pytest.mark.both_reply_modes
async def test_the_command_asks_over_amqp(
    worker: Any, url_of: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], reply_mode: ReplyMode
) -> None:
    settings = load("", "f", {}, {"models_dir": str(tmp_path), "topology.reply_mode": reply_mode})
    body = '{"id": "7", "inputs": [{"name": "x", "datatype": "INT64", "shape": [1], "data": [4]}]}'
    await asyncio.to_thread(infer.run, settings, Question("echo/1", body, url_of(), 10.0), {})
    answer = json.loads(capsys.readouterr().out)
    assert (answer["id"], answer["outputs"][0]["data"]) == ("7", [8])
    assert worker.requests.items[0].routing_key == "echo.1"
    with pytest.raises(errors.NotFound, match="version 2"):
        await asyncio.to_thread(infer.run, settings, Question("echo/2", body, url_of(), 10.0), {})
    worker.answering = False
    with pytest.raises(errors.Expired):
        await asyncio.to_thread(infer.run, settings, Question("echo", body, url_of(), 0.2), {})


async def run_pika(url: str, *arguments: str, reply_mode: str = "direct") -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "MODELMQ_AMQP_URL": url, "MODELMQ_REPLY_MODE": reply_mode}
    command = [sys.executable, str(PIKA), *arguments]
    return await asyncio.to_thread(
        subprocess.run, command, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.both_reply_modes
@pytest.mark.both_brokers
async def test_pika_alone_asks_and_is_answered(worker: Any, url_of: Any, tmp_path: Path, reply_mode: ReplyMode) -> None:
    await worker.channel.bind_queue("ml-model.echo.interactive", "ml-model-exchange", "digits")
    asked = await run_pika(url_of(), reply_mode=reply_mode)
    assert (asked.returncode, asked.stderr) == (0, "")
    assert asked.stdout.startswith("x: [0.0, 0.0, 4.0, 28.0")
    assert worker.requests.items[0].properties.headers["deadline"] > 0
    question = tmp_path / "q.json"
    question.write_text('{"inputs": [{"name": "y", "datatype": "INT64", "shape": [1], "data": [4]}]}')
    assert (await run_pika(url_of(), "echo", str(question), reply_mode=reply_mode)).stdout == "y: [8]\n"


async def test_pika_is_told_errors(worker: Any, url_of: Any) -> None:
    asked = await run_pika(url_of(), "nobody")
    assert (asked.returncode, asked.stderr) == (1, "not_found: there is no model nobody\n")
    worker.answering = False
    waiting = asyncio.create_task(run_pika(url_of(), "echo"))
    (request,) = await worker.requests.count(1)
    worker.answer(request, encode_error("because"), headers={"status": "invalid"})
    asked = await waiting
    assert (asked.returncode, asked.stderr) == (1, "invalid: because\n")
