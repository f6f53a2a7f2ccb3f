"""Opening a connection to something that is no broker, or a broken one: one typed error, in time."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from pamqp import commands

from modelmq.amqp import ConnectionOptions, Credentials, Endpoint, connect
from modelmq.errors import AccessRefused, ConnectFailed

PeerFactory = Callable[..., Any]


def limited(options: ConnectionOptions, timeout_s: float) -> ConnectionOptions:
    return msgspec.structs.replace(options, connect_timeout_s=timeout_s)


async def refused(options: ConnectionOptions, sentence: str) -> ConnectFailed:
    with pytest.raises(ConnectFailed, match=sentence) as caught:
        await asyncio.wait_for(connect(options), 30)
    assert caught.value.message[-1] in ".?"
    assert "secret" not in caught.value.message
    return caught.value


async def silent(peer: Any) -> None:
    await peer.until_closed()


async def speaks_http(peer: Any) -> None:
    await peer.reader.readexactly(8)
    peer.raw(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
    await peer.until_closed()


async def speaks_another_version(peer: Any) -> None:
    await peer.reader.readexactly(8)
    peer.raw(b"AMQP\x00\x01\x00\x00")


async def hangs_up_at_once(peer: Any) -> None:
    peer.writer.close()


async def hangs_up_after_start(peer: Any) -> None:
    await peer.reader.readexactly(8)
    peer.send(commands.Connection.Start(mechanisms="PLAIN"))
    await peer.expect(commands.Connection.StartOk)


async def tunes_before_it_starts(peer: Any) -> None:
    await peer.reader.readexactly(8)
    peer.send(commands.Connection.Tune(0, 131_072, 0))
    await peer.until_closed()


async def delivers_before_it_is_open(peer: Any) -> None:
    await peer.reader.readexactly(8)
    peer.deliver(1, b"x")
    await peer.until_closed()


async def announces_a_huge_frame(peer: Any) -> None:
    await peer.reader.readexactly(8)
    peer.raw(b"\x01\x00\x00\x7f\xff\xff\xff")
    await peer.until_closed()


async def refuses_the_virtual_host(peer: Any) -> None:
    await peer.reader.readexactly(8)
    peer.send(commands.Connection.Start(mechanisms="PLAIN"))
    await peer.expect(commands.Connection.StartOk)
    peer.send(commands.Connection.Tune(2047, 131_072, 0))
    await peer.expect(commands.Connection.Open)
    peer.send(commands.Connection.Close(530, "NOT_ALLOWED - no", 10, 40))
    await peer.until_closed()


async def shuts_down(peer: Any) -> None:
    await peer.reader.readexactly(8)
    peer.send(commands.Connection.Close(320, "CONNECTION_FORCED", 0, 0))
    await peer.until_closed()


async def takes_no_frames(peer: Any) -> None:
    await peer.reader.readexactly(8)
    peer.send(commands.Connection.Start(mechanisms="PLAIN"))
    await peer.expect(commands.Connection.StartOk)
    peer.send(commands.Connection.Tune(2047, 100, 0))
    await peer.until_closed()


@pytest.mark.parametrize(
    ("script", "sentence"),
    [
        (speaks_http, "does not speak AMQP"),
        (speaks_another_version, r"another version of AMQP \(0.1.0.0\)"),
        (hangs_up_at_once, "ended"),
        (hangs_up_after_start, "ended"),
        (tunes_before_it_starts, "where Connection.Start is due"),
        (delivers_before_it_is_open, "channel 1, which is not open"),
        (announces_a_huge_frame, "2147483647 bytes; 4088"),
        (shuts_down, "320 CONNECTION_FORCED"),
        (takes_no_frames, "frames of 100 bytes"),
    ],
)
async def test_what_is_no_broker_is_told_in_words(peer: PeerFactory, script: Any, sentence: str) -> None:
    async with peer(script) as options:
        error = await refused(options, sentence)
        assert not isinstance(error, AccessRefused)
        assert str(options.endpoints[0]) in error.message


async def test_what_never_answers_is_given_up(peer: PeerFactory) -> None:
    async with peer(silent) as options:
        await refused(limited(options, 0.2), "did not answer in time")


async def test_a_refusal_has_its_own_error(peer: PeerFactory) -> None:
    async with peer(refuses_the_virtual_host) as options:
        error = await refused(options, "NOT_ALLOWED - no")
        assert isinstance(error, AccessRefused)
        assert error.reply_code == 530


async def test_nobody_there_is_told_in_words() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    options = ConnectionOptions(endpoints=(Endpoint("127.0.0.1", port),), credentials=_credentials)
    await refused(options, "refused the connection; is RabbitMQ running there")


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a..b", "x" * 70])
async def test_a_name_that_leads_nowhere_is_told_in_words(host: str) -> None:
    options = ConnectionOptions(endpoints=(Endpoint(host, 5672),), credentials=_credentials)
    await refused(options, "cannot be reached")


async def test_all_nodes_are_tried_and_all_failures_told(peer: PeerFactory) -> None:
    async with peer(speaks_http) as first, peer(hangs_up_at_once) as second:
        options = msgspec.structs.replace(first, endpoints=first.endpoints + second.endpoints)
        error = await refused(options, "does not speak AMQP; .* ended")
        assert all(str(endpoint) in error.message for endpoint in options.endpoints)


async def test_the_first_node_that_takes_us_is_used(peer: PeerFactory, opened: Any) -> None:
    async def good(peer: Any) -> None:
        await peer.handshake()
        await peer.until_closed()

    async with peer(hangs_up_at_once) as bad, peer(good) as fine:
        both = msgspec.structs.replace(bad, endpoints=bad.endpoints + fine.endpoints)
        connection = await opened(both)
        assert connection.endpoint == fine.endpoints[0]


async def test_giving_up_leaves_no_socket_behind(peer: PeerFactory) -> None:
    gone = asyncio.Event()

    async def waits(peer: Any) -> None:
        await peer.until_closed()
        gone.set()

    async with peer(waits) as options:
        task = asyncio.create_task(connect(options))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await refused(limited(options, 0.1), "in time")
        await asyncio.wait_for(gone.wait(), 20)


def _credentials() -> Credentials:
    return Credentials("user", "secret")
