"""Tells a run: the page beside its evidence, and a few lines for the terminal."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from tests.chaos import report, timeline
from tests.chaos.run import Judged

PAGE = "report.html"
_MOST_BINS = 700

Recovery = tuple[str, str, str, bool]
Mutation = tuple[str, str, bool]


def write(
    folder: Path, judged: Judged, *, recoveries: Sequence[Recovery] = (), mutations: Sequence[Mutation] = ()
) -> str:
    """Writes the page into the folder; the lines."""
    evidence, history = judged.evidence, judged.history
    shape, duration_s = evidence.shape, evidence.ended_at - evidence.began_at
    latencies = timeline.latencies_ok(history)
    counted = [each for each in judged.faults if each.counts]
    per_s = shape.http_callers * shape.http_per_s + shape.client_per_s + shape.pika_per_s
    facts = report.Facts(
        seed=evidence.seed,
        command=f'make chaos ARGS="{evidence.options}--seed {evidence.seed}"',
        versions={
            "ModelMQ": version("modelmq"), "RabbitMQ": evidence.rabbitmq, "Python": platform.python_version(),
            "Linux": platform.release(),
        },
        offered=f"Offered: {per_s:,.0f} requests/s over HTTP, the Python client and pika. RabbitMQ nodes: "
        f"{shape.nodes}, gateways: {shape.gateways}, workers: {shape.workers}; replies {shape.reply_mode}; deadline "
        f"{shape.timeout_s:g} s, heartbeat {shape.heartbeat_s:g} s.",
        duration_s=duration_s,
        counted=counted,
        in_flight=[each.in_flight for each in counted],
        latency_s={name: timeline.share(latencies, part) for name, part in (("p50", 0.5), ("p99", 0.99)) if latencies},
        recoveries=recoveries,
        mutations=mutations,
    )  # fmt: skip
    bins = timeline.seconds(history, evidence.began_at, evidence.ended_at, max(0.25, duration_s / _MOST_BINS))
    (folder / PAGE).write_text(report.page(facts, judged.verdict, judged.faults, bins))
    return _lines(folder, judged)


def _lines(folder: Path, judged: Judged) -> str:
    verdict = judged.verdict
    struck = Counter(each.kind for each in judged.faults if each.counts)
    lines = [
        f"{verdict.asked} asked, {verdict.accepted} accepted, {struck.total()} of {len(judged.faults)} faults struck: "
        + ", ".join(f"{kind} {count}" for kind, count in sorted(struck.items())),
        *(
            f"  {kind}: " + ", ".join(f"{code} {count}" for code, count in codes.most_common())
            for kind, codes in verdict.codes.items()
        ),
        f"  dead letters {verdict.letters}, of them second copies {verdict.letters_twice}; cleared away by the broker "
        f"{verdict.expired_in_broker}; replies seen twice by the producer {verdict.seen_twice}; "
        f"consumers it gave up {verdict.given_up}",
        *(f"VIOLATION {each.kind}: {each.id} {each.said}" for each in verdict.violations[:30]),
        f"{len(verdict.violations)} violations; seed {judged.evidence.seed}; the page: {folder / PAGE}",
    ]
    return "\n".join(lines) + "\n"
