"""Figure 2: requests per second of the whole path over HTTP, against MLServer with adaptive batching.

Same model file, same batch size, same threads per session, same bodies. Both are up during the whole figure, one of
them is loaded at a time, and the CPU time of the idle one is printed beside the ratio.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import mlserver_side, workload, wrk
from benchmarks.figure import Comparison
from benchmarks.mlserver_side import Model, Tuning
from benchmarks.processes import cpu_s, family_of
from benchmarks.ratios import Target, spread
from benchmarks.system import System

CONNECTIONS = (64, 256)
TARGET = Target("at least", 3)
TUNINGS = tuple(
    Tuning(workers, wait_s) for workers in (0, 1) for wait_s in (0.0005, 0.001, 0.002, 0.005, 0.02)
)  # fmt: skip
UNBATCHED = Tuning(0, 0.0)
"""Not what is compared with (it batches nothing), but printed beside it, because for a tiny model it is faster."""
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how often; `tunings` are tried for `tuning_s` each, then the best one is compared with."""

    rounds: int
    duration_s: float
    tunings: Sequence[Tuning]
    tuning_s: float


@dataclass(frozen=True, slots=True)
class Server:
    """One side as the load sees it: where to post, and whose CPU time to count."""

    url: str
    pids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Round:
    """One loaded window of one side, and the share of one core the other side used meanwhile."""

    counted: wrk.Wrk
    idle_cores: float


def measure(system: System, plan: Plan, folder: Path, say: Say) -> list[Comparison]:
    """One comparison for each number of connections."""
    cases = workload.digits_cases(system.model_file)
    bodies = workload.write_bodies(cases, folder / "bodies")
    model = Model(system.model, system.model_file, system.max_batch_size, system.threads)
    rates = _try_tunings(model, plan, cases, bodies, folder, say)
    ours = Server(system.infer_url, tuple(family_of(system.pid)) + tuple(family_of(system.broker_pid)))
    figures = []
    for connections in CONNECTIONS:
        best = max(plan.tunings, key=lambda tuning: rates[tuning, connections])
        with mlserver_side.serving(model, best, folder / f"mlserver-{connections}") as (url, pid):
            rival = Server(f"{url}/v2/models/{model.name}/infer", tuple(family_of(pid)))
            say(f"  {connections} connections, MLServer with {best}")
            rounds = [_round(ours, rival, connections, plan, cases, bodies, say) for _ in range(plan.rounds)]
        unbatched = rates[UNBATCHED, connections]
        figures.append(_comparison(connections, best, unbatched, rounds))
    return figures


def _try_tunings(
    model: Model, plan: Plan, cases: Sequence[workload.Case], bodies: Path, folder: Path, say: Say
) -> dict[tuple[Tuning, int], float]:
    rates = {}
    for number, tuning in enumerate((*plan.tunings, UNBATCHED)):
        with mlserver_side.serving(model, tuning, folder / f"tuning-{number}") as (url, _):
            infer_url = f"{url}/v2/models/{model.name}/infer"
            workload.verify(infer_url, cases)
            for connections in CONNECTIONS:
                rates[tuning, connections] = wrk.load(infer_url, connections, plan.tuning_s, bodies).rate
        shown = ", ".join(f"{rates[tuning, c]:,.0f} requests/s at {c}" for c in CONNECTIONS)
        say(f"  MLServer with {tuning}: {shown}")
    return rates


def _round(
    ours: Server, rival: Server, connections: int, plan: Plan, cases: Sequence[workload.Case], bodies: Path, say: Say
) -> tuple[Round, Round]:
    pair = []
    for side, other in ((ours, rival), (rival, ours)):
        workload.verify(side.url, cases)  # warms up, and proves the answers row by row
        before = cpu_s(other.pids)
        with workload.spot_checks(side.url, cases):
            counted = wrk.load(side.url, connections, plan.duration_s, bodies)
        if counted.errors:
            raise RuntimeError(f"{side.url}: {counted.errors} of {counted.requests} answers were errors.")
        pair.append(Round(counted, (cpu_s(other.pids) - before) / counted.seconds))
    mine, theirs = pair
    say(f"  ModelMQ {mine.counted.rate:,.0f}, MLServer {theirs.counted.rate:,.0f} requests/s")
    return mine, theirs


def _comparison(connections: int, best: Tuning, unbatched: float, rounds: Sequence[tuple[Round, Round]]) -> Comparison:
    ours, rival = zip(*rounds, strict=True)
    return Comparison(
        title=f"Whole path over HTTP, digits as JSON, {connections} connections",
        unit="requests/s",
        ours=tuple(r.counted.rate for r in ours),
        rival_name="MLServer",
        rival=tuple(r.counted.rate for r in rival),
        target=TARGET,
        notes=(
            f"MLServer at its best of those tried: {best}; without batching {unbatched:,.0f} requests/s",
            f"p50 / p99: ModelMQ {_tails(ours)} ms, MLServer {_tails(rival)} ms; no answer but 200 on either side",
            f"the idle side used {_idle(ours):.2f} (MLServer) and {_idle(rival):.2f} (ModelMQ and broker) of one core",
        ),
    )


def _tails(rounds: Sequence[Round]) -> str:
    p50, p99 = (
        spread(values).median for values in zip(*((r.counted.p50_ms, r.counted.p99_ms) for r in rounds), strict=True)
    )
    return f"{p50:.1f} / {p99:.1f}"


def _idle(rounds: Sequence[Round]) -> float:
    return spread([r.idle_cores for r in rounds]).median
