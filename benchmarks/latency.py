"""Figure 3: the median time of one request at a time over HTTP, against a bare AMQP round trip.

The round trip is a confirmed publish to a queue of the same type on the same broker and the echo's answer over direct
reply-to, with the same body: what any design over this broker pays. The ratio is what the gateway, the batcher, the
child process and the model add.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks import workload
from benchmarks.broker_client import echo_worker
from benchmarks.clients.drive import Address
from benchmarks.figure import Comparison
from benchmarks.processes import child
from benchmarks.ratios import Target, percentile
from benchmarks.system import System

TARGET = Target("at most", 2)
Say = Callable[[str], None]


def measure(system: System, rounds: int, requests: int, log: Path, say: Say) -> list[Comparison]:
    """Blocks of requests by turns, one request in flight in all."""
    case = workload.digits_cases(system.model_file, rows=1)[0]
    http_ms: list[tuple[float, float]] = []
    amqp_ms: list[tuple[float, float]] = []
    warm_up = requests // 5
    with echo_worker("bare", system.echo, log), _amqp_timer(system.echo, case.body, log) as time_amqp:
        http = RawHttp(system.infer_url, case)
        for number in range(rounds):
            http_ms.append(_quantiles(http.times(requests, warm_up)))
            amqp_ms.append(_quantiles(time_amqp(requests, warm_up)))
            say(f"  round {number + 1}: p50 over HTTP {http_ms[-1][0]:.2f} ms, bare AMQP {amqp_ms[-1][0]:.2f} ms")
        http.close()
    return [
        Comparison(
            title="One request at a time, p50 over HTTP",
            unit="ms",
            ours=tuple(p50 for p50, _ in http_ms),
            rival_name="a bare AMQP round trip",
            rival=tuple(p50 for p50, _ in amqp_ms),
            target=TARGET,
            notes=(
                f"{requests} requests per round and side, body of {len(case.body)} bytes",
                f"p99: over HTTP {percentile([p for _, p in http_ms], 0.5):.2f} ms, "
                f"bare AMQP {percentile([p for _, p in amqp_ms], 0.5):.2f} ms",
            ),
        )
    ]


def _quantiles(seconds: list[float]) -> tuple[float, float]:
    return percentile(seconds, 0.5) * 1000, percentile(seconds, 0.99) * 1000


@contextmanager
def _amqp_timer(address: Address, body: bytes, log: Path) -> Iterator[Callable[[int, int], list[float]]]:
    arguments = [sys.executable, "-m", "benchmarks.clients", "time", "bare"]
    with child(arguments, log, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        stdin, stdout = process.stdin, process.stdout

        def tell(order: dict[str, object]) -> None:
            stdin.write(json.dumps(order) + "\n")
            stdin.flush()

        def times(count: int, warm_up: int) -> list[float]:
            tell({"count": count, "warm_up": warm_up})
            answer = stdout.readline()
            if not answer:
                raise RuntimeError(f"The bare AMQP requester ended; see {log}.")
            return list(json.loads(answer))

        tell({"address": asdict(address), "body": body.decode()})
        yield times


class RawHttp:
    """One kept-alive connection and one request made once: the client costs as little as it can."""

    def __init__(self, url: str, case: workload.Case) -> None:
        parts = urlsplit(url)
        self._case = case
        self._socket = socket.create_connection((parts.hostname or "", parts.port or 80), timeout=30)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        head = (
            f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(case.body)}\r\n\r\n"
        )
        self._request = head.encode() + case.body

    def times(self, count: int, warm_up: int) -> list[float]:
        """Seconds of each of `count` requests after the warm-up; the last answer is compared."""
        taken = []
        answer = b""
        for _ in range(warm_up + count):
            begun = time.perf_counter()
            answer = self._ask()
            taken.append(time.perf_counter() - begun)
        wrong = workload.why_wrong(answer, self._case)
        if wrong:
            raise RuntimeError(wrong)
        return taken[warm_up:]

    def _ask(self) -> bytes:
        self._socket.sendall(self._request)
        data = b""
        while (end := data.find(b"\r\n\r\n")) < 0:
            data += self._receive()
        head = data[:end].lower()
        if not head.startswith(b"http/1.1 200"):
            raise RuntimeError(f"The gateway answered {data[:300]!r}.")
        length = int(head.partition(b"content-length:")[2].split(b"\r\n", 1)[0])
        while len(data) < end + 4 + length:
            data += self._receive()
        return data[end + 4 :]

    def _receive(self) -> bytes:
        data = self._socket.recv(65536)
        if not data:
            raise RuntimeError("The gateway closed the connection.")
        return data

    def close(self) -> None:
        """Idempotent."""
        self._socket.close()
