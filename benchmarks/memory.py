"""Figure 4: memory of the gateway and of the worker with its child, after 100,000 requests.

Proportional set size, as Linux gives it: pages that processes share count once, in shares. MB are 10^6 bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchmarks import workload, wrk
from benchmarks.figure import Amount
from benchmarks.processes import family_of, pss_mb
from benchmarks.ratios import Target
from benchmarks.system import System

REQUESTS = 100_000
CONNECTIONS = 64
Say = Callable[[str], None]


def measure(system: System, requests: int, folder: Path, say: Say) -> list[Amount]:
    """Load the system until it has answered that many, then weigh it."""
    bodies = workload.write_bodies(workload.digits_cases(system.model_file), folder / "memory-bodies")
    answered = 0
    while answered < requests:
        counted = wrk.load(system.infer_url, CONNECTIONS, 5, bodies)
        if counted.errors or not counted.requests:
            raise RuntimeError(f"{counted.errors} of {counted.requests} answers were errors.")
        answered += counted.requests
        say(f"  {answered:,} requests answered")
    worker = family_of(system.worker_pid)
    parts = ", ".join(f"{pss_mb([pid]):.1f}" for pid in worker)
    return [
        Amount(
            f"Memory of the gateway after {answered:,} requests (PSS)",
            "MB",
            pss_mb([system.gateway_pid]),
            Target("at most", 80),
        ),
        Amount(
            f"Memory of the worker and its child with the digits model after {answered:,} requests (PSS)",
            "MB",
            pss_mb(worker),
            Target("at most", 150),
            notes=(f"process by process: {parts} MB",),
        ),
    ]
