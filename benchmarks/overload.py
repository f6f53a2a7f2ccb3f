"""Figure 6: ten times more is asked than a model can do: what is answered, what is refused, and how fast.

`modelmq up` with its defaults serves a model that sleeps 20 ms for each batch of at most 8. Its capacity is measured in
a closed loop; then requests with a deadline of a second leave at ten times that rate as a Poisson process, whatever
comes back. The model itself notes what it computed after the deadline.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks import ours
from benchmarks.clients.http_load import Order, Sample
from benchmarks.figure import Amount
from benchmarks.ours import Running
from benchmarks.processes import child, family_of, rss_mb
from benchmarks.ratios import Target, percentile

MODEL = "sleeper"
DEADLINE_S = 1.0
FACTOR = 10
_CODE = """
import time

class Model:
    inputs = {"x": ("FP64", [-1])}
    outputs = {"y": ("FP64", [-1])}

    def __init__(self):
        self._notes = open("NOTES", "a", buffering=1)

    def predict(self, batch):
        deadlines, now = batch["x"], time.time()
        self._notes.write(f"{len(deadlines)} {int((deadlines < now).sum())}\\n")
        time.sleep(0.02)
        return {"y": deadlines}
"""
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """How long, and over how many connections at most."""

    capacity_s: float
    overload_s: float
    connections: int


FULL = Plan(10.0, 60.0, 1500)
QUICK = Plan(2.0, 5.0, 600)


def measure(plan: Plan, folder: Path, say: Say) -> list[Amount]:
    """Capacity, then the overload, on a ModelMQ that is ended before this returns."""
    notes = folder / "computed.txt"
    with ours.serving(folder, _write_model(folder / "models", notes)) as running:
        capacity = _capacity(running, plan, folder, say)
        weights = [_weigh(running)]
        before = _computed(notes)
        order = _order(running, plan.connections, FACTOR * capacity, plan.overload_s)
        with _generator(order, folder) as sampled:
            for part in (0.5, 1.0):
                time.sleep(plan.overload_s * 0.5 - (0.5 if part == 1.0 else 0.0))
                weights.append(_weigh(running))
            sample = sampled()
        _tell_course(sample, plan, say)
        computed, late = (after - at for after, at in zip(_computed(notes), before, strict=True))
        say(f"  computed {computed:,} requests, {late} of them after their deadline")
    return _amounts(plan, capacity, sample, weights, (computed, late))


def _write_model(models: Path, notes: Path) -> Path:
    version = models / MODEL / "1"
    version.mkdir(parents=True)
    (version / "model.py").write_text(_CODE.replace("NOTES", str(notes)))
    (version.parent / "model.toml").write_text("max_batch_size = 8\n")
    return models


def _order(running: Running, connections: int, per_s: float, duration_s: float) -> Order:
    address = urlsplit(running.http_url)
    path = f"/v2/models/{MODEL}/infer"
    return Order(address.hostname or "", address.port or 0, path, connections, per_s, duration_s, DEADLINE_S)


def _capacity(running: Running, plan: Plan, folder: Path, say: Say) -> float:
    """Answers per second when there is always enough to do, and never too much."""
    with _generator(_order(running, 64, 0.0, plan.capacity_s), folder) as sampled:
        sample = sampled()
    answers = [at for at, _ in sample.answers.get("200", []) if 1.0 <= at < plan.capacity_s]
    capacity = len(answers) / (plan.capacity_s - 1.0)
    say(f"  capacity {capacity:.0f} requests/s")
    if not capacity:
        raise RuntimeError(f"The model answers nothing: {_counts(sample)}.")
    return capacity


@contextmanager
def _generator(order: Order, folder: Path) -> Iterator[Callable[[], Sample]]:
    """A process that has begun; call for its sample when it is due."""
    command = [sys.executable, "-m", "benchmarks.clients.http_load"]
    log = folder / "generator.log"
    with child(command, log, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(asdict(order)) + "\n")
        process.stdin.flush()
        stdout = process.stdout

        def sampled() -> Sample:
            line = stdout.readline()
            if not line:
                raise RuntimeError(f"The generator ended; see {log}.")
            return Sample(**json.loads(line))

        yield sampled


def _computed(notes: Path) -> tuple[int, int]:
    """Requests the model has computed, and those it began after their deadline."""
    pairs = [line.split() for line in notes.read_text().splitlines()]
    return sum(int(count) for count, _ in pairs), sum(int(late) for _, late in pairs)


def _weigh(running: Running) -> dict[str, float]:
    """Resident memory of each part now, in MB."""
    return {
        "gateway": rss_mb([running.pids["gateway"]]),
        "worker and model": rss_mb(family_of(running.pids["worker"])),
        "broker": rss_mb([running.node.pid]),
    }


def _tell_course(sample: Sample, plan: Plan, say: Say) -> None:
    """Each tenth of the time in a line, by when the answers came."""
    part_s = plan.overload_s / 10
    for part in range(10):
        came = {
            status: [took for at, took in answers if part * part_s <= at < (part + 1) * part_s]
            for status, answers in sample.answers.items()
        }
        told = (
            f"{status} {len(each) / part_s:.0f}/s, p50 {percentile(each, 0.5):.3f}, p99 {percentile(each, 0.99):.3f} s"
            for status, each in sorted(came.items())
            if each
        )
        say(f"  from {part * part_s:g} s: {'; '.join(told)}")


def _counts(sample: Sample) -> dict[str, int]:
    return {status: len(answers) for status, answers in sorted(sample.answers.items())}


def _amounts(
    plan: Plan, capacity: float, sample: Sample, weights: list[dict[str, float]], computed: tuple[int, int]
) -> list[Amount]:
    good = [(at, took) for at, took in sample.answers.get("200", []) if took <= DEADLINE_S and at <= plan.overload_s]
    accepted = [took for status, answers in sample.answers.items() if status not in ("429",) for _, took in answers]
    refused = [took * 1000 for _, took in sample.answers.get("429", [])]
    counts = _counts(sample)
    asked = sum(counts.values())
    growth = max(last / first for first, last in ((weights[1][part], weights[2][part]) for part in weights[0]))
    return [
        Amount(
            f"Goodput at {FACTOR} x capacity, of capacity",
            "%",
            100 * len(good) / plan.overload_s / capacity,
            Target("at least", 95),
            (
                f"capacity {capacity:.0f}/s; asked {asked / plan.overload_s:.0f}/s for {plan.overload_s:g} s, "
                f"answered in time {len(good) / plan.overload_s:.0f}/s",
                f"answers by status: {', '.join(f'{status} {count:,}' for status, count in counts.items())}",
                f"Retry-After: {_said(sample.retry_after)}; {sample.unsent:,} requests waited for a connection",
            ),
        ),
        Amount(
            "Accepted requests, p99 of the time to their answer",
            "s",
            percentile(accepted, 0.99),
            Target("at most", DEADLINE_S),
            (f"p50 {percentile(accepted, 0.5):.3f} s; every answer that is not 429 counts, of {len(accepted):,}",),
        ),
        Amount(
            "Refusals, p99 of the time to them",
            "ms",
            percentile(refused, 0.99) if refused else 0.0,
            Target("at most", 20),
            (f"p50 {percentile(refused, 0.5) if refused else 0.0:.1f} ms, from the moment the request was to leave",),
        ),
        Amount(
            "Computed after their deadline",
            "requests",
            computed[1],
            Target("at most", 0),
            (f"of {computed[0]:,} computed",),
        ),
        Amount("Memory at the end, of that in the middle", "x", growth, Target("at most", 1.1), _weight_lines(weights)),
    ]


def _said(values: Mapping[str, int]) -> str:
    return ", ".join(f"{value or 'none'} s {count:,}" for value, count in sorted(values.items())) or "never"


def _weight_lines(weights: list[dict[str, float]]) -> tuple[str, ...]:
    parts = (f"{part} " + ", ".join(f"{weight[part]:.0f}" for weight in weights) for part in weights[0])
    return ("the largest ratio of any part; RSS in MB at start, middle and end: " + "; ".join(parts),)
