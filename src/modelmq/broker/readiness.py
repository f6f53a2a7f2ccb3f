"""Tells whether a RabbitMQ node answers, by asking it, and why one did not start, by reading its log.

`rabbitmqctl` would start a second Erlang machine for every question, so the ports are asked instead: AMQP's
handshake and the management API.
"""

from __future__ import annotations

import base64
import http.client
import re
import socket
from collections.abc import Iterable
from pathlib import Path

import msgspec

from modelmq.broker.node_config import LOOPBACK

_HANDSHAKE = b"AMQP\x00\x00\x09\x01"
_CONNECTION_START = b"\x01\x00\x00"  # a method frame on channel 0
_TIMEOUT_S = 2.0

_SEVERE = re.compile(
    r"\[(error|critical|alert|emergency)\]|eaddrinuse|\bBOOT FAILED\b|Protocol .* error|cannot|failed", re.I
)
_DECORATION = re.compile(r"^\S+ \S+ \[(?P<level>\w+)\] <[\d.]+>\s?")


class _Overview(msgspec.Struct):
    rabbitmq_version: str


def amqp_answers(port: int) -> bool:
    """Whether the port answers AMQP's protocol header with the start of a connection."""
    try:
        with socket.create_connection((LOOPBACK, port), timeout=_TIMEOUT_S) as link:
            link.settimeout(_TIMEOUT_S)
            link.sendall(_HANDSHAKE)
            return link.recv(3, socket.MSG_WAITALL) == _CONNECTION_START
    except OSError:
        return False


def management_version(port: int, username: str, password: str) -> str:
    """RabbitMQ's version, told by its management API to its administrator; empty while it does not answer."""
    token = base64.b64encode(f"{username}:{password}".encode()).decode()
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", "/api/overview?columns=rabbitmq_version", headers={"Authorization": f"Basic {token}"})
        answer = connection.getresponse()
        body = answer.read()
        return msgspec.json.decode(body, type=_Overview).rabbitmq_version if answer.status == 200 else ""
    except (OSError, http.client.HTTPException, msgspec.DecodeError):
        return ""
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


def interesting_lines(text: str, most: int = 4) -> list[str]:
    """The first lines of a log that tell what went wrong, without time stamps; the last ones if none stands out."""
    lines = [_DECORATION.sub("", line).strip() for line in text.splitlines()]
    severe = [plain for plain, line in zip(lines, text.splitlines(), strict=True) if plain and _SEVERE.search(line)]
    chosen = _distinct(severe)[:most] or [line for line in lines if line][-most:]
    return [line[:200] for line in chosen]


def _distinct(lines: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(lines))
