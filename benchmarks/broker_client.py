"""Figure 1: requests per second of one requester and one echo worker over one durable quorum queue.

All sides publish with the mandatory flag and publisher confirms, take answers over direct reply-to, keep the same
number in flight, run on uvloop, and have one connection and one channel per process. ModelMQ's requester works as in
the gateway: requests of one turn of the loop share a message. A message for each is measured and printed as well.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from benchmarks.clients.drive import Address, Load, Sample
from benchmarks.figure import Comparison
from benchmarks.processes import child
from benchmarks.ratios import Target, spread

IN_FLIGHT = 256
BODY_BYTES = 256
SINGLE = "modelmq-single"
TARGETS = {"aiormq": Target("at least", 5), "aio-pika": Target("at least", 8)}
Say = Callable[[str], None]


@contextmanager
def echo_worker(side: str, address: Address, log: Path, prefetch: int = IN_FLIGHT) -> Iterator[int]:
    """A running echo worker of a side; gives its pid."""
    arguments = [sys.executable, "-m", "benchmarks.clients", "echo", side]
    with child(arguments, log, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        _tell(process, {"address": asdict(address), "prefetch": prefetch})
        assert process.stdout is not None
        if process.stdout.readline().strip() != "ready":
            raise RuntimeError(f"The {side} echo worker did not start; see {log}.")
        yield process.pid


def ask(side: str, address: Address, load: Load, log: Path) -> Sample:
    """One measured window of a side's requester, in a process of its own."""
    with child([sys.executable, "-m", "benchmarks.clients", "ask", side], log, stdin=subprocess.PIPE,
               stdout=subprocess.PIPE) as process:  # fmt: skip
        _tell(process, {"address": asdict(address), "load": asdict(load)})
        assert process.stdout is not None
        answer = process.stdout.readline()
        if not answer:
            raise RuntimeError(f"The {side} requester ended without a result; see {log}.")
        return Sample(**json.loads(answer))


def _tell(process: subprocess.Popen[str], order: dict[str, object]) -> None:
    assert process.stdin is not None
    process.stdin.write(json.dumps(order) + "\n")
    process.stdin.flush()


def measure(address: Address, rounds: int, duration_s: float, log: Path, say: Say) -> list[Comparison]:
    """ModelMQ against both rivals, one window each by turns."""
    load = Load(IN_FLIGHT, BODY_BYTES, warm_up_s=min(2.0, duration_s / 2), duration_s=duration_s)
    samples: dict[str, list[Sample]] = {side: [] for side in ("modelmq", SINGLE, *TARGETS)}
    for number in range(rounds):
        for side, taken in samples.items():
            with echo_worker(side, address, log):
                taken.append(ask(side, address, load, log))
            say(f"  round {number + 1}: {side} {taken[-1].requests / taken[-1].seconds:,.0f} requests/s")
    return [_comparison(samples, rival, target) for rival, target in TARGETS.items()]


def _comparison(samples: dict[str, list[Sample]], rival: str, target: Target) -> Comparison:
    ours, single, theirs = samples["modelmq"], samples[SINGLE], samples[rival]
    alone = spread([mine.requests * other.seconds / (other.requests * mine.seconds)
                    for mine, other in zip(single, theirs, strict=True)])  # fmt: skip
    return Comparison(
        title="Broker client, one requester and one echo worker",
        unit="requests/s",
        ours=tuple(s.requests / s.seconds for s in ours),
        rival_name=rival,
        rival=tuple(s.requests / s.seconds for s in theirs),
        target=target,
        notes=(
            f"{IN_FLIGHT} in flight, {BODY_BYTES}-byte bodies, quorum queue, confirms, direct reply-to",
            f"with a message for each request: {alone.median:.2f} times ({alone.low:.2f} to {alone.high:.2f})",
            f"CPU per request in the requester: ModelMQ {_cost_us(ours):.0f} µs, {rival} {_cost_us(theirs):.0f} µs",
        ),
    )


def _cost_us(samples: list[Sample]) -> float:
    return spread([s.cpu_s / max(s.requests, 1) * 1e6 for s in samples]).median
