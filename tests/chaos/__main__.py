"""`python -m tests.chaos`: the proof that no accepted request is lost. `make chaos` is the way to it."""

from __future__ import annotations

import argparse
import os
import secrets
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from tests.chaos import broken, recovery
from tests.chaos.run import Goal, Judged, Say, judge, run, say_to
from tests.chaos.schedule import CLUSTER_KINDS, LINK_KINDS, PROCESS_KINDS, SINGLE_NODE_KINDS, TWICE
from tests.chaos.stage import Shape
from tests.chaos.summary import write
from tests.chaos.watch import watched

_TRIES = 3
_EACH = 12
"""Of each kind that struck as far as the run sees; the ledgers, which tell in the end, may find two fewer."""


def main(arguments: Sequence[str] | None = None) -> int:
    """0: every promise was kept, and what was broken on purpose was found."""
    options = _parser().parse_args(arguments)
    if options.judge:
        return _tell(options.judge, judge(options.judge))
    seed = options.seed if options.seed is not None else secrets.randbelow(1_000_000)
    folder = options.folder.resolve() / f"{time.strftime('%Y%m%d-%H%M%S')}-{seed}"
    folder.mkdir(parents=True, mode=0o700)
    signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGINT))  # so that everything is ended
    say = say_to(sys.stdout)
    say(f"seed {seed}; the evidence is in {folder}")
    if options.recovery:
        return _recovery(folder, options, say)
    if options.mutations:
        return _mutations(folder, seed, say)
    return _proof(folder, options, seed, say)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make chaos", description="See docs/chaos.md.")
    parser.add_argument("--seed", type=int, default=None, help="the schedule of an earlier run")
    parser.add_argument("--short", action="store_true", help="each kind of fault once")
    parser.add_argument("--cluster", action="store_true", help="three nodes of RabbitMQ, and faults of nodes")
    parser.add_argument("--kinds", default="", help="only these faults, separated by commas")
    parser.add_argument("--faults", type=int, default=None, help="how many")
    parser.add_argument("--accepted", type=int, default=500_000, help="requests of the long form")
    parser.add_argument("--longest-s", type=float, default=3600.0, help="end then, whatever is missing")
    parser.add_argument("--load", type=float, default=1.0, help="times the usual load")
    parser.add_argument("--recovery", action="store_true", help="how long a single worker takes to be back")
    parser.add_argument("--mutations", action="store_true", help="promises broken on purpose must be found")
    parser.add_argument("--judge", type=Path, metavar="DIR", help="only judge what an earlier run left in its folder")
    parser.add_argument("--folder", type=Path, default=Path(".modelmq/chaos"), help="where the evidence is kept")
    return parser


def _proof(folder: Path, options: argparse.Namespace, seed: int, say: Say) -> int:
    shape, usual = Shape(), SINGLE_NODE_KINDS
    if options.cluster:
        shape, usual = msgspec.structs.replace(shape, nodes=3, reply_mode="queue"), PROCESS_KINDS + LINK_KINDS
        usual += CLUSTER_KINDS
    shape = msgspec.structs.replace(
        shape,
        http_per_s=shape.http_per_s * options.load,
        client_per_s=shape.client_per_s * options.load,
        pika_per_s=shape.pika_per_s * options.load,
    )
    kinds = tuple(options.kinds.split(",")) if options.kinds else usual
    twice = tuple(kind for kind in TWICE if kind in kinds)
    goal = Goal(options.accepted, options.faults or 200, _EACH, kinds + twice, options.longest_s)
    if options.short:
        goal = Goal(0, options.faults or len(kinds), 0, kinds, 300.0)
    given = "".join(f"--{name} " for name in ("short", "cluster") if getattr(options, name))
    given += "".join(
        f"--{name} {value} " for name, value in vars(options).items() if name in ("kinds", "load") and value
    )
    with watched(folder):
        judged = uvloop.run(run(folder, shape, goal, seed, say, options=given))
    return _tell(folder, judged)


def _tell(folder: Path, judged: Judged) -> int:
    """With the figures and findings that were measured into the same folder, if any."""
    recoveries = [each.row() for each in _found(folder / "recovery.json", list[recovery.Figure])]
    mutations = [each.row() for each in _found(folder / "mutations.json", list[broken.Finding])]
    sys.stdout.write(write(folder, judged, recoveries=recoveries, mutations=mutations))
    return 1 if judged.verdict.violations else 0


def _found(path: Path, kind: Any) -> Any:
    return msgspec.json.decode(path.read_bytes(), type=kind) if path.exists() else []


def _recovery(folder: Path, options: argparse.Namespace, say: Say) -> int:
    kinds = options.kinds.split(",") if options.kinds else ()
    with watched(folder):
        figures = uvloop.run(recovery.measure(folder, options.faults or _TRIES, say, kinds))
    for what, measured, at_most, kept in (figure.row() for figure in figures):
        sys.stdout.write(f"{what}: {measured}, at most {at_most}{'' if kept else '   MISSED'}\n")
    (folder / "recovery.json").write_bytes(msgspec.json.encode(figures))
    return 0 if all(figure.kept for figure in figures) else 1


def _mutations(folder: Path, seed: int, say: Say) -> int:
    findings = []
    for each in broken.ALL:
        with watched(folder / each.name):
            findings.append(uvloop.run(broken.find(each, folder, seed, say)))
    for what, said, found in (finding.row() for finding in findings):
        sys.stdout.write(f"with {what}, the checker says: {said}{'' if found else '   NOT FOUND'}\n")
    (folder / "mutations.json").write_bytes(msgspec.json.encode(findings))
    return 0 if all(finding.found for finding in findings) else 1


if __name__ == "__main__":
    sys.exit(main())
