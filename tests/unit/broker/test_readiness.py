from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from modelmq.broker import readiness

LOG = """2026-01-01 00:00:00.1+00:00 [info] <0.1.0> Starting
2026-01-01 00:00:00.2+00:00 [error] <0.2.0> Cannot open it
2026-01-01 00:00:00.3+00:00 [error] <0.3.0> Cannot open it
2026-01-01 00:00:00.4+00:00 [critical] <0.3.0> ----
2026-01-01 00:00:00.5+00:00 [warning] <0.3.0> Odd
"""


@pytest.fixture
def answering() -> Iterator[Callable[[bytes], int]]:
    """A port whose every connection gets these bytes."""
    servers: list[tuple[socket.socket, threading.Thread]] = []

    def start(content: bytes) -> int:
        listener = socket.create_server(("127.0.0.1", 0))

        def serve() -> None:
            link, _ = listener.accept()
            with link:
                link.recv(4096)
                link.sendall(content)

        thread = threading.Thread(target=serve)
        thread.start()
        servers.append((listener, thread))
        return int(listener.getsockname()[1])

    yield start
    for listener, thread in servers:
        thread.join(10)
        listener.close()


def test_amqp(answering: Callable[[bytes], int]) -> None:
    assert readiness.amqp_answers(answering(b"\x01\x00\x00rest"))
    assert not readiness.amqp_answers(answering(b"AMQP\x00\x00\x09\x01"))
    assert not readiness.amqp_answers(answering(b""))
    assert not readiness.amqp_answers(1)


@pytest.mark.parametrize(
    ("content", "answer"),
    [
        (b'HTTP/1.0 200 OK\r\n\r\n{"rabbitmq_version":"3.10.8"}', (200, "3.10.8")),
        (b"HTTP/1.0 401 No\r\n\r\n{}", (401, "")),
        (b"HTTP/1.0 200 OK\r\n\r\n<html>", (0, "")),
        (b"\x01\x00\x00", (0, "")),
        (b"", (0, "")),
    ],
)
def test_management(answering: Callable[[bytes], int], content: bytes, answer: tuple[int, str]) -> None:
    assert readiness.management_answer(answering(content), "u", "p") == answer


def test_what_a_log_says() -> None:
    assert readiness.severe_lines(LOG) == ["Cannot open it"]
    assert readiness.last_lines(LOG, 2) == ["Cannot open it", "Odd"]
    assert readiness.severe_lines("Protocol 'inet_tcp': register/listen error: eaddrinuse") != []
    assert readiness.last_lines("") == []


def test_the_part_of_a_file_that_is_new(tmp_path: Path) -> None:
    path = tmp_path / "log"
    assert (readiness.size_of(path), readiness.read_from(path, 0)) == (0, "")
    path.write_text("before,after")
    assert readiness.size_of(path) == 12
    assert readiness.read_from(path, 7) == "after"
