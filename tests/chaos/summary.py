"""Tells a run: the page beside its evidence, and a few lines for the terminal."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from tests.chaos import report, timeline
from tests.chaos.ledger import read_all
from tests.chaos.run import Result
from tests.chaos.stage import Shape

PAGE = "report.html"
_MOST_BINS = 700


def write(
    folder: Path,
    result: Result,
    shape: Shape,
    *,
    options: str = "",
    recoveries: Sequence[tuple[str, str, str, bool]] = (),
    mutations: Sequence[tuple[str, str, bool]] = (),
) -> str:
    """Writes the page into the folder; the lines. `options` are those of the command beside its seed."""
    history = read_all(sorted((folder / "ledger").iterdir()))
    duration_s = result.ended_at - result.began_at
    latencies = timeline.latencies_ok(history)
    counted = [each for each in result.faults if each.counts]
    per_s = shape.http_callers * shape.http_per_s + shape.client_per_s + shape.pika_per_s
    facts = report.Facts(
        seed=result.seed,
        command=f'make chaos ARGS="{options}--seed {result.seed}"',
        versions={
            "ModelMQ": version("modelmq"), "RabbitMQ": result.rabbitmq, "Python": platform.python_version(),
            "Linux": platform.release(),
        },
        offered=f"Offered: {per_s:,.0f} requests/s over HTTP, the Python client and pika; {shape.gateways} gateways, "
        f"{shape.workers} workers, deadline {shape.timeout_s:g} s, heartbeat {shape.heartbeat_s:g} s.",
        duration_s=duration_s,
        counted=counted,
        in_flight=[each.in_flight for each in counted],
        latency_s={
            name: timeline.share(latencies, part) for name, part in (("p50", 0.5), ("p99", 0.99)) if latencies
        },
        recoveries=recoveries,
        mutations=mutations,
    )  # fmt: skip
    bins = timeline.seconds(history, result.began_at, result.ended_at, max(0.25, duration_s / _MOST_BINS))
    (folder / PAGE).write_text(report.page(facts, result.verdict, result.faults, bins))
    return _lines(folder, result)


def _lines(folder: Path, result: Result) -> str:
    verdict = result.verdict
    struck = Counter(each.kind for each in result.faults if each.counts)
    lines = [
        f"{verdict.asked} asked, {verdict.accepted} accepted, {struck.total()} of {len(result.faults)} faults struck: "
        + ", ".join(f"{kind} {count}" for kind, count in sorted(struck.items())),
        *(
            f"  {kind}: " + ", ".join(f"{code} {count}" for code, count in codes.most_common())
            for kind, codes in verdict.codes.items()
        ),
        f"  dead letters {verdict.letters}, of them second copies {verdict.letters_twice}; cleared away by the broker "
        f"{verdict.expired_in_broker}; replies seen twice by the producer {verdict.seen_twice}",
        *(f"VIOLATION {each.kind}: {each.id} {each.said}" for each in verdict.violations[:30]),
        f"{len(verdict.violations)} violations; seed {result.seed}; the page: {folder / PAGE}",
    ]
    return "\n".join(lines) + "\n"
