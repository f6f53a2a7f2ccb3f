"""An open connection whose peer does what no broker does on request."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from pamqp import commands

from modelmq.amqp import Properties, Settled
from modelmq.errors import BrokerError, ChannelClosed, ConnectionLost, ProtocolViolation

PeerFactory = Callable[..., Any]
PATIENCE_S = 20.0


async def soon(awaitable: Any) -> Any:
    return await asyncio.wait_for(awaitable, PATIENCE_S)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0)


async def ended(connection: Any) -> BrokerError | None:
    return await soon(asyncio.shield(connection.closed))


async def test_a_silent_peer_is_dead_after_two_heartbeats(peer: PeerFactory, opened: Any) -> None:
    async def falls_silent(peer: Any) -> None:
        await peer.handshake(heartbeat_s=1)
        await peer.until_closed()

    async with peer(falls_silent) as options:
        connection = await opened(options)
        began = time.monotonic()
        reason = await ended(connection)
        assert isinstance(reason, ConnectionLost)
        assert "was silent for 2 s" in reason.message
        assert 1.5 < time.monotonic() - began < 10


async def test_heartbeats_go_both_ways(peer: PeerFactory, opened: Any) -> None:
    beats = 0
    done = asyncio.Event()

    async def beats_back(peer: Any) -> None:
        nonlocal beats
        await peer.handshake(heartbeat_s=1)
        while beats < 8:  # four seconds: nobody would live so long without them
            _, value = await peer.read()
            beats += value.name == "Heartbeat"
            peer.beat()
        done.set()
        await peer.until_closed()

    async with peer(beats_back) as options:
        connection = await opened(options)
        await soon(done.wait())
        assert not connection.closed.done()


async def test_the_brokers_own_end_has_its_number_and_its_text(peer: PeerFactory, opened: Any) -> None:
    said: list[Any] = []

    async def closes(peer: Any) -> None:
        await peer.handshake()
        await peer.open_channel()
        peer.send(commands.Connection.Close(320, "CONNECTION_FORCED - shutdown", 0, 0))
        said.append(await peer.expect(commands.Connection.CloseOk))

    async with peer(closes) as options:
        connection = await opened(options)
        channel = await soon(connection.channel())
        reason = await ended(connection)
        assert isinstance(reason, ConnectionLost)
        assert (reason.reply_code, "320 CONNECTION_FORCED - shutdown" in reason.message) == (320, True)
        assert channel.closed.result().reply_code == 320
        for call in (connection.channel, connection.drain, channel.confirm_select):
            with pytest.raises(ConnectionLost, match="CONNECTION_FORCED"):
                await call()
        with pytest.raises(ConnectionLost, match="CONNECTION_FORCED"):
            channel.publish("", "q", Properties(), b"")
        await connection.close()
        await channel.close()
    assert said


async def test_alarms_are_told_and_end(peer: PeerFactory, opened: Any) -> None:
    heard: asyncio.Queue[tuple[bool, str]] = asyncio.Queue()
    cleared = asyncio.Event()

    async def alarms(peer: Any) -> None:
        await peer.handshake()
        peer.send(commands.Connection.Blocked("low on memory"))
        await cleared.wait()
        peer.send(commands.Connection.Unblocked())
        await peer.until_closed()

    async with peer(alarms) as options:
        connection = await opened(options, on_blocked=lambda blocked, reason: heard.put_nowait((blocked, reason)))
        assert await soon(heard.get()) == (True, "low on memory")
        assert connection.blocked
        cleared.set()
        assert await soon(heard.get()) == (False, "")
        assert not connection.blocked


async def test_both_sides_may_close_a_channel_at_one_time(peer: PeerFactory, opened: Any) -> None:
    async def crosses(peer: Any) -> None:
        await peer.handshake()
        await peer.open_channel()
        await peer.expect(commands.Channel.Close)
        peer.send(commands.Channel.Close(404, "NOT_FOUND", 50, 10), 1)
        await peer.expect(commands.Channel.CloseOk)
        peer.send(commands.Channel.CloseOk(), 1)
        await peer.open_channel()
        await peer.until_closed()

    async with peer(crosses) as options:
        connection = await opened(options)
        channel = await soon(connection.channel())
        await soon(channel.close())
        again = await soon(connection.channel())
        assert again.number == channel.number
        assert not connection.closed.done()


async def test_what_was_on_its_way_when_a_channel_closes_bothers_nobody(
    peer: PeerFactory, opened: Any, no_complaints: list[Any]
) -> None:
    async def keeps_delivering(peer: Any) -> None:
        await peer.handshake()
        await peer.open_channel()
        await peer.expect(commands.Basic.Consume)
        peer.send(commands.Basic.ConsumeOk("c1"), 1)
        peer.deliver(1, b"first")
        await peer.expect(commands.Channel.Close)
        peer.deliver(2, b"late")
        peer.send(commands.Channel.CloseOk(), 1)
        await peer.until_closed()

    async with peer(keeps_delivering) as options:
        connection = await opened(options)
        channel = await soon(connection.channel())
        got: list[bytes] = []
        first = asyncio.Event()

        def on_delivery(delivery: Any) -> None:
            got.append(delivery.body)
            first.set()
            channel.ack(delivery.delivery_tag)

        await soon(channel.consume("q", on_delivery))
        await soon(first.wait())
        await soon(channel.close())
        assert got == [b"first"]
        assert no_complaints == []


@pytest.mark.parametrize(
    ("frame", "channel", "sentence"),
    [
        (b"\x01\x00\x01\x7f\xff\xff\xff", 0, "2147483647 bytes"),
        (b"HTTP/1.1", 0, "does not speak AMQP"),
        (commands.Channel.CloseOk(), 9, "channel 9, which is not open"),
        (commands.Queue.DeclareOk("q", 0, 0), 1, "where nobody asked"),
        (commands.Channel.CloseOk(), 1, "where nobody asked"),
        (commands.Connection.OpenOk(), 0, "where it has no place"),
        (commands.Connection.CloseOk(), 0, "where it has no place"),
        (commands.Basic.Ack(1), 1, "has no confirms"),
        (b"\x03\x00\x01\x00\x00\x00\x01x\xce", 0, "nobody expects"),
        (b"\x01\x00\x00\x00\x00\x00\x04\x00\x3c\x00\x3c\xce", 0, "too early"),
    ],
)
async def test_what_no_broker_may_send_ends_the_connection_with_one_error(
    peer: PeerFactory, opened: Any, frame: Any, channel: int, sentence: str
) -> None:
    async def misbehaves(peer: Any) -> None:
        await peer.handshake()
        await peer.open_channel()
        await peer.expect(commands.Basic.Publish)
        peer.send(frame, channel)
        await peer.until_closed()

    async with peer(misbehaves) as options:
        connection = await opened(options)
        ours = await soon(connection.channel())
        ours.publish("", "q", Properties(), b"")
        reason = await ended(connection)
        assert isinstance(reason, ProtocolViolation)
        assert sentence in reason.message
        assert isinstance(ours.closed.result(), ProtocolViolation)
        with pytest.raises(ProtocolViolation, match=sentence):
            await connection.channel()


async def test_a_verdict_over_nothing_ends_the_connection_and_loses_nobody(peer: PeerFactory, opened: Any) -> None:
    async def confirms_too_much(peer: Any) -> None:
        await peer.handshake()
        await peer.open_channel()
        await peer.expect(commands.Confirm.Select)
        peer.send(commands.Confirm.SelectOk(), 1)
        await peer.expect(commands.Basic.Publish)
        peer.send(commands.Basic.Ack(2), 1)
        await peer.until_closed()

    async with peer(confirms_too_much) as options:
        connection = await opened(options)
        channel = await soon(connection.channel())
        await soon(channel.confirm_select())
        told: list[Settled] = []
        channel.publish("", "q", Properties(), b"", on_settled=told.append)
        assert isinstance(await ended(connection), ProtocolViolation)
        assert told == [Settled.LOST]


async def test_everybody_who_waits_hears_of_the_end(peer: PeerFactory, opened: Any) -> None:
    async def vanishes(peer: Any) -> None:
        await peer.handshake()
        await peer.open_channel()
        await peer.expect(commands.Queue.Declare)
        peer.writer.transport.abort()

    async with peer(vanishes) as options:
        connection = await opened(options)
        channel = await soon(connection.channel())
        calls = [asyncio.create_task(channel.declare_queue(f"q{n}")) for n in range(5)]
        for result in await soon(asyncio.gather(*calls, return_exceptions=True)):
            assert isinstance(result, ConnectionLost)
        assert isinstance(await ended(connection), ConnectionLost)


async def test_a_call_nobody_waits_for_any_more_shifts_no_answer(peer: PeerFactory, opened: Any) -> None:
    answer = asyncio.Event()

    async def answers_late(peer: Any) -> None:
        await peer.handshake()
        await peer.open_channel()
        first = await peer.expect(commands.Queue.Declare)
        second = await peer.expect(commands.Queue.Declare)
        await answer.wait()
        for declare in (first, second):
            peer.send(commands.Queue.DeclareOk(declare.queue, 0, 0), 1)
        await peer.until_closed()

    async with peer(answers_late) as options:
        connection = await opened(options)
        channel = await soon(connection.channel())
        first = asyncio.create_task(channel.declare_queue("first"))
        second = asyncio.create_task(channel.declare_queue("second"))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        answer.set()
        assert await soon(second) == "second"


async def test_a_peer_that_stops_reading_holds_up_who_asks(peer: PeerFactory, opened: Any) -> None:
    """`writable` turns false, `drain` waits, and who obeys it has little in memory however much there is to say."""
    read_on = asyncio.Event()
    total = 0

    async def stops_reading(peer: Any) -> None:
        nonlocal total
        await peer.handshake()
        await peer.open_channel()
        peer.writer.transport.pause_reading()
        await read_on.wait()
        peer.writer.transport.resume_reading()
        total += len(await peer.until_closed())

    async with peer(stops_reading) as options:
        connection = await opened(options)
        channel = await soon(connection.channel())
        body = bytes(100_000)
        sent = 0

        async def say_much() -> None:
            nonlocal sent
            for _ in range(300):
                channel.publish("", "q", Properties(), body)
                sent += 1
                await connection.drain()

        talking = asyncio.create_task(say_much())
        await until(lambda: not connection.writable)
        assert not talking.done()
        before = sent
        for _ in range(100):
            await asyncio.sleep(0)
        assert (sent, connection.writable) == (before, False)
        waiting = connection._transport.get_write_buffer_size() + sum(map(len, connection._outgoing))
        assert waiting < 500_000, "what waits is the caller's doing, and it obeyed"
        read_on.set()
        await soon(talking)
        await soon(connection.drain())
        assert connection.writable
        connection._transport.close()
        await ended(connection)
    assert total > 300 * 100_000


async def test_who_waits_for_a_peer_that_never_reads_hears_of_the_end(peer: PeerFactory, opened: Any) -> None:
    async def never_reads(peer: Any) -> None:
        await peer.handshake()
        await peer.open_channel()
        peer.writer.transport.pause_reading()
        await asyncio.Event().wait()

    async with peer(never_reads) as options:
        connection = await opened(options)
        channel = await soon(connection.channel())
        channel.publish("", "q", Properties(), bytes(15_000_000))
        await until(lambda: not connection.writable)
        waiting = asyncio.create_task(connection.drain())
        await asyncio.sleep(0)
        connection.abort()
        with pytest.raises(ConnectionLost):
            await soon(waiting)


async def test_a_publisher_that_drains_is_sent_on_the_way(peer: PeerFactory, opened: Any) -> None:
    """Bytes leave once per turn of the loop, so `drain` must let the loop turn."""
    arrived = asyncio.Event()

    async def reads(peer: Any) -> None:
        await peer.handshake()
        await peer.open_channel()
        await peer.expect(commands.Basic.Publish)
        arrived.set()
        await peer.until_closed()

    async with peer(reads) as options:
        connection = await opened(options)
        channel = await soon(connection.channel())
        for _ in range(1_000):
            channel.publish("", "q", Properties(), b"x" * 1000)
            await connection.drain()
            assert sum(map(len, connection._outgoing)) < 10_000
        await soon(arrived.wait())


async def test_bytes_may_come_one_by_one(peer: PeerFactory, opened: Any) -> None:
    async def dribbles(peer: Any) -> None:
        peer.in_pieces_of = 1
        await peer.handshake()
        await peer.open_channel()
        await peer.expect(commands.Basic.Consume)
        peer.send(commands.Basic.ConsumeOk("c1"), 1)
        for tag in range(1, 4):
            peer.deliver(tag, b"x" * 300 * tag)
        await peer.until_closed()

    async with peer(dribbles) as options:
        connection = await opened(options)
        channel = await soon(connection.channel())
        got: asyncio.Queue[Any] = asyncio.Queue()
        await soon(channel.consume("q", got.put_nowait))
        assert [len((await soon(got.get())).body) for _ in range(3)] == [300, 600, 900]


async def test_a_listener_that_raises_harms_nobody_else(
    peer: PeerFactory, opened: Any, no_complaints: list[dict[str, Any]]
) -> None:
    async def delivers_two(peer: Any) -> None:
        await peer.handshake()
        await peer.open_channel()
        await peer.expect(commands.Basic.Consume)
        peer.send(commands.Basic.ConsumeOk("c1"), 1)
        peer.deliver(1, b"bad")
        peer.deliver(2, b"good")
        await peer.until_closed()

    async with peer(delivers_two) as options:
        connection = await opened(options)
        channel = await soon(connection.channel())
        good = asyncio.Event()

        def on_delivery(delivery: Any) -> None:
            if delivery.body == b"bad":
                raise RuntimeError("a bug")
            good.set()

        await soon(channel.consume("q", on_delivery))
        await soon(good.wait())
        assert [str(each["exception"]) for each in no_complaints] == ["a bug"]
        no_complaints.clear()


async def test_closing_waits_for_what_was_written_and_is_idempotent(peer: PeerFactory, opened: Any) -> None:
    seen: list[str] = []

    async def listens(peer: Any) -> None:
        await peer.handshake()
        await peer.open_channel()
        await peer.expect(commands.Connection.Close)
        seen.extend(value.name for value in peer.seen)
        peer.send(commands.Connection.CloseOk())
        await peer.until_closed()

    async with peer(listens) as options:
        connection = await opened(options)
        channel = await soon(connection.channel())
        channel.publish("", "q", Properties(), b"last words")
        await soon(asyncio.gather(connection.close(), connection.close()))
        await soon(connection.close())
        assert connection.closed.result() is None
        with pytest.raises(ConnectionLost, match="was closed"):
            channel.publish("", "q", Properties(), b"")
    assert seen[-4:] == ["Basic.Publish", "ContentHeader", "ContentBody", "Connection.Close"]


async def test_a_peer_that_says_no_goodbye_is_left(
    peer: PeerFactory, opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modelmq.amqp.connection._CLOSE_S", 0.1)

    async def ignores(peer: Any) -> None:
        await peer.handshake()
        await peer.until_closed()

    async with peer(ignores) as options:
        connection = await opened(options)
        await soon(connection.close())
        assert await ended(connection) is None


async def test_all_channels_in_use_is_one_error(peer: PeerFactory, opened: Any) -> None:
    async def opens_two(peer: Any) -> None:
        await peer.handshake()
        for number in (1, 2):
            await peer.expect(commands.Channel.Open)
            peer.send(commands.Channel.OpenOk(), number)
        await peer.until_closed()

    async with peer(opens_two) as options:
        connection = await opened(msgspec.structs.replace(options, channel_max=2))
        for _ in range(2):
            await soon(connection.channel())
        with pytest.raises(ChannelClosed, match="All 2 channels"):
            await connection.channel()
