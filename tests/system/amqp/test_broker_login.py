"""Logging in to a real RabbitMQ, through TLS and without, rightly and wrongly."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from modelmq.amqp import (
    ConnectionOptions,
    Credentials,
    Endpoint,
    Properties,
    Settled,
    TlsOptions,
    connect,
    options_from_url,
)
from modelmq.errors import AccessRefused, ConnectFailed

pytestmark = pytest.mark.broker


def secure(vhost: Any, ca_file: Any, **endpoint: Any) -> ConnectionOptions:
    options = options_from_url(vhost.tls_url, tls=TlsOptions(str(ca_file)))
    place = msgspec.structs.replace(options.endpoints[0], **endpoint)
    return msgspec.structs.replace(options, endpoints=(place,), connect_timeout_s=15.0)


@pytest.mark.both_brokers
async def test_a_verified_tls_connection_carries_messages(vhost: Any, opened: Any) -> None:
    connection = await opened(secure(vhost, vhost.node.ca_file))
    channel = await connection.channel()
    await channel.confirm_select()
    queue = await channel.declare_queue(exclusive=True)
    got: asyncio.Queue[Any] = asyncio.Queue()
    await channel.consume(queue, got.put_nowait, no_ack=True)
    body = bytes(range(256)) * 4096
    settled: asyncio.Queue[Settled] = asyncio.Queue()
    channel.publish("", queue, Properties(), body, on_settled=settled.put_nowait)
    assert (await asyncio.wait_for(got.get(), 20)).body == body
    assert await asyncio.wait_for(settled.get(), 20) is Settled.ACKED
    await connection.close()
    assert connection.closed.result() is None


async def test_no_tls_to_the_tls_port_is_told_in_words(vhost: Any) -> None:
    with pytest.raises(ConnectFailed, match="does not speak AMQP"):
        await connect(secure(vhost, vhost.node.ca_file, tls=None))


@pytest.mark.both_brokers
async def test_a_wrong_password_is_refused_in_words(vhost: Any) -> None:
    options = msgspec.structs.replace(vhost.options(), credentials=lambda: Credentials(vhost.username, "hunter2"))
    with pytest.raises(AccessRefused, match=f'refused the user "{vhost.username}"') as caught:
        await connect(options)
    assert caught.value.reply_code == 403
    assert "hunter2" not in caught.value.message


@pytest.mark.both_brokers
async def test_a_virtual_host_that_is_not_there_is_refused_in_words(vhost: Any) -> None:
    with pytest.raises(AccessRefused, match='virtual host "no-such"') as caught:
        await connect(msgspec.structs.replace(vhost.options(), vhost="no-such"))
    assert caught.value.reply_code == 530


@pytest.mark.both_brokers
async def test_a_virtual_host_without_rights_is_refused_in_words(vhost: Any) -> None:
    with pytest.raises(AccessRefused, match='virtual host "/"'):
        await connect(msgspec.structs.replace(vhost.options(), vhost="/"))


async def test_credentials_are_asked_for_at_every_attempt(vhost: Any, opened: Any) -> None:
    passwords = iter(["old", vhost.password])
    options = msgspec.structs.replace(vhost.options(), credentials=lambda: Credentials(vhost.username, next(passwords)))
    with pytest.raises(AccessRefused):
        await connect(options)
    await opened(options)


async def test_dead_nodes_are_passed_over(vhost: Any, opened: Any, unused_tcp_port: int) -> None:
    options = vhost.options()
    dead = Endpoint("127.0.0.1", unused_tcp_port)
    connection = await opened(msgspec.structs.replace(options, endpoints=(dead, *options.endpoints)))
    assert connection.endpoint == options.endpoints[0]


@pytest.mark.both_brokers
@pytest.mark.parametrize("frame_max", [8192, 131_072, 1_000_000])
async def test_the_broker_agrees_to_our_limits(vhost: Any, opened: Any, frame_max: int) -> None:
    connection = await opened(msgspec.structs.replace(vhost.options(), frame_max=frame_max, channel_max=1))
    assert connection.frame_max == min(frame_max, 131_072)
