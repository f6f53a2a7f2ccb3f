from __future__ import annotations

import socket
from collections.abc import Iterator

import msgspec
import pytest

from modelmq.broker import ports
from modelmq.errors import NodeError


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_all_differ_and_are_free() -> None:
    chosen = ports.choose(None, tls=True)
    numbers = set(msgspec.structs.asdict(chosen).values())
    assert len(numbers) == 6
    assert all(20_000 <= number < 32_000 and ports.is_free(number) for number in numbers)
    plain, secure = ports.choose(None), ports.choose(None, plain=False, tls=True)
    assert (plain.amqps, plain.https, secure.amqp, secure.management) == (0, 0, 0, 0)
    assert all((plain.amqp, plain.management, secure.amqps, secure.https))


def test_those_of_last_time_unless_taken(taken: int) -> None:
    last = ports.choose(None, tls=True)
    assert ports.choose(last, tls=True) == last
    now = ports.choose(msgspec.structs.replace(last, amqp=taken), tls=True)
    assert now.amqp not in (taken, 0)
    assert msgspec.structs.replace(now, amqp=last.amqp) == last


def test_those_asked_for_or_an_error(taken: int) -> None:
    free = ports.choose(None)
    asked, management = free.amqp, free.management
    assert ports.choose(None, amqp=asked).amqp == asked
    secure = ports.choose(None, amqp=asked, management=management, plain=False, tls=True)
    assert (secure.amqps, secure.https) == (asked, management)
    both = ports.choose(None, amqp=asked, tls=True)
    assert (both.amqp, both.amqps == asked) == (asked, False)
    with pytest.raises(NodeError, match=rf"^Port {taken} on 127\.0\.0\.1, wanted for AMQP, is taken: end what uses it"):
        ports.choose(None, amqp=taken)
    with pytest.raises(NodeError, match=r"wanted for the management API, is taken"):
        ports.choose(None, management=taken)


def test_a_port_taken_on_every_address_is_taken() -> None:
    with socket.create_server(("", 0)) as listener:
        assert not ports.is_free(listener.getsockname()[1])


def test_a_closed_connection_does_not_hold_its_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", port))
        server, _ = listener.accept()
        server.close()  # the side that closes first waits in TIME_WAIT
        client.close()
    assert ports.is_free(port)
