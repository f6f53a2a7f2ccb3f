"""Figure 2: requests per second of the whole path over HTTP, against MLServer with adaptive batching.

Same model file, same batch size, same threads per session, same bodies. MLServer is there twice, each way at its best:
within one process, and with a process for the model. All are up during the whole figure, one is loaded at a time,
and the CPU time of the idle ones is printed beside the ratio.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
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
    """How long and how often; `tunings` are tried for `tuning_s` each, and the best of each way enters the rounds."""

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
    """One loaded window of one side, and the share of one core that all others used meanwhile."""

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
        finalists = _best_of_each_way(plan.tunings, connections, rates)
        with ExitStack() as stack:
            servers = [ours]
            for tuning in finalists:
                place = folder / f"mlserver-{connections}-{tuning.parallel_workers}"
                url, pid = stack.enter_context(mlserver_side.serving(model, tuning, place))
                servers.append(Server(f"{url}/v2/models/{model.name}/infer", tuple(family_of(pid))))
                say(f"  {connections} connections, MLServer with {tuning}")
            rounds = [_round(servers, connections, plan, cases, bodies, say) for _ in range(plan.rounds)]
        figures.append(_comparison(connections, finalists, rates[UNBATCHED, connections], rounds))
    return figures


def _best_of_each_way(
    tunings: Sequence[Tuning], connections: int, rates: Mapping[tuple[Tuning, int], float]
) -> list[Tuning]:
    """The fastest tuning without a process for the model, and the fastest with one."""
    best: dict[int, Tuning] = {}
    for tuning in sorted(tunings, key=lambda tuning: rates[tuning, connections]):
        best[tuning.parallel_workers] = tuning
    return [best[workers] for workers in sorted(best)]


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
    servers: Sequence[Server],
    connections: int,
    plan: Plan,
    cases: Sequence[workload.Case],
    bodies: Path,
    say: Say,
) -> list[Round]:
    """A window for each side, in turn: ours first, then the finalists."""
    windows = []
    for side in servers:
        others = [pid for other in servers if other is not side for pid in other.pids]
        workload.verify(side.url, cases)  # warms up, and proves the answers row by row
        before = cpu_s(others)
        with workload.spot_checks(side.url, cases):
            counted = wrk.load(side.url, connections, plan.duration_s, bodies)
        if counted.errors:
            raise RuntimeError(f"{side.url}: {counted.errors} of {counted.requests} answers were errors.")
        windows.append(Round(counted, (cpu_s(others) - before) / counted.seconds))
    mine, *theirs = (f"{window.counted.rate:,.0f}" for window in windows)
    say(f"  ModelMQ {mine}, MLServer {' and '.join(theirs)} requests/s")
    return windows


def _comparison(
    connections: int, finalists: Sequence[Tuning], unbatched: float, rounds: Sequence[Sequence[Round]]
) -> Comparison:
    """Ours against the finalist whose rounds were the faster."""
    ours, *theirs = zip(*rounds, strict=True)
    medians = [spread(_rates(each)).median for each in theirs]
    better = medians.index(max(medians))
    tried = ", ".join(f"{tuning}: {median:,.0f}" for tuning, median in zip(finalists, medians, strict=True))
    return Comparison(
        title=f"Whole path over HTTP, digits as JSON, {connections} connections",
        unit="requests/s",
        ours=_rates(ours),
        rival_name="MLServer",
        rival=_rates(theirs[better]),
        target=TARGET,
        notes=(
            f"MLServer in these rounds with {tried} requests/s; without batching, before them, {unbatched:,.0f}",
            f"p50 / p99: ModelMQ {_tails(ours)} ms, MLServer {_tails(theirs[better])} ms; every answer was 200",
            f"cores that idle sides used: {_idle(ours):.2f} in our windows, {_idle(theirs[better]):.2f} in the other",
        ),
    )


def _rates(rounds: Sequence[Round]) -> tuple[float, ...]:
    return tuple(each.counted.rate for each in rounds)


def _tails(rounds: Sequence[Round]) -> str:
    p50, p99 = (
        spread(values).median for values in zip(*((r.counted.p50_ms, r.counted.p99_ms) for r in rounds), strict=True)
    )
    return f"{p50:.1f} / {p99:.1f}"


def _idle(rounds: Sequence[Round]) -> float:
    return spread([r.idle_cores for r in rounds]).median
