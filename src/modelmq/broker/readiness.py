"""Tells whether a RabbitMQ node answers, by asking it, and why one did not start, by reading its log.

`rabbitmqctl` would start a second Erlang machine for every question, so the ports are asked instead: AMQP's
handshake and the management API.
"""

from __future__ import annotations

import base64
import http.client
import re
import socket
import ssl
from collections.abc import Iterable
from pathlib import Path

import msgspec

from modelmq.broker.node_config import LOOPBACK

_HANDSHAKE = b"AMQP\x00\x00\x09\x01"
_CONNECTION_START = b"\x01\x00\x00"  # a method frame on channel 0
_TIMEOUT_S = 2.0

_SEVERE = re.compile(r"\[(error|critical|alert|emergency)\]|address already in use|eaddrinuse|\(no error logger")
_DECORATION = re.compile(r"^\S+ \S+ \[\w+\] <[\d.]+>")
_LONGEST = 200


class _Overview(msgspec.Struct):
    rabbitmq_version: str


def amqp_answers(port: int, tls: ssl.SSLContext | None = None) -> bool:
    """Whether the port answers AMQP's protocol header with the start of a connection."""
    try:
        with (
            socket.create_connection((LOOPBACK, port), timeout=_TIMEOUT_S) as plain,
            tls.wrap_socket(plain, server_hostname=LOOPBACK) if tls else plain as link,
            link.makefile("rb") as answer,
        ):
            link.sendall(_HANDSHAKE)
            return answer.read(len(_CONNECTION_START)) == _CONNECTION_START
    except OSError:
        return False


def management_answer(port: int, username: str, password: str, tls: ssl.SSLContext | None = None) -> tuple[int, str]:
    """HTTP status and RabbitMQ's version, as its management API tells its administrator; 0 and empty for no answer."""
    token = base64.b64encode(f"{username}:{password}".encode()).decode()
    connection = (
        http.client.HTTPSConnection(LOOPBACK, port, timeout=_TIMEOUT_S, context=tls)
        if tls
        else http.client.HTTPConnection(LOOPBACK, port, timeout=_TIMEOUT_S)
    )
    try:
        connection.request("GET", "/api/overview?columns=rabbitmq_version", headers={"Authorization": f"Basic {token}"})
        # Closed by itself: where the node says that it closes, the answer alone holds the socket.
        with connection.getresponse() as answer:
            body = answer.read()
        return answer.status, msgspec.json.decode(body, type=_Overview).rabbitmq_version if answer.status == 200 else ""
    except (OSError, http.client.HTTPException, msgspec.DecodeError):
        return 0, ""
    finally:
        connection.close()


def read_from(path: Path, offset: int) -> str:
    """The file's text from a byte position on; empty when there is none."""
    try:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(1_000_000).decode("utf-8", "replace")
    except OSError:
        return ""


def size_of(path: Path) -> int:
    """In bytes; 0 when there is no such file."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def severe_lines(text: str, most: int = 4) -> list[str]:
    """The first different lines of a log that are errors, without time stamps."""
    return _plain(line for line in text.splitlines() if _SEVERE.search(line))[:most]


def last_lines(text: str, most: int = 3) -> list[str]:
    """The end of a log, without time stamps."""
    return _plain(text.splitlines())[-most:]


def _plain(lines: Iterable[str]) -> list[str]:
    bare = (_DECORATION.sub("", line).strip()[:_LONGEST] for line in lines)
    return list(dict.fromkeys(line for line in bare if line.strip("-= ")))
