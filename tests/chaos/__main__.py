"""`python -m tests.chaos`: the proof that no accepted request is lost. `make chaos` is the way to it."""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import signal
import sys
import time
from pathlib import Path

import uvloop

from tests.chaos.run import Goal, run, say_to
from tests.chaos.schedule import SINGLE_NODE_KINDS
from tests.chaos.stage import Shape
from tests.chaos.summary import write
from tests.chaos.watch import watched


def main() -> int:
    """0: every promise was kept."""
    parser = argparse.ArgumentParser(prog="make chaos")
    parser.add_argument("--seed", type=int, default=None, help="the schedule of an earlier run")
    parser.add_argument("--short", action="store_true", help="a minute: each kind of fault once")
    parser.add_argument("--kinds", default="", help="only these faults, separated by commas")
    parser.add_argument("--faults", type=int, default=None)
    parser.add_argument("--folder", type=Path, default=Path(".modelmq/chaos"), help="where the evidence is kept")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else secrets.randbelow(1_000_000)
    kinds = tuple(options.kinds.split(",")) if options.kinds else SINGLE_NODE_KINDS
    folder = options.folder.resolve() / f"{time.strftime('%Y%m%d-%H%M%S')}-{seed}"
    folder.mkdir(parents=True, mode=0o700)
    say = say_to(sys.stdout)
    say(f"seed {seed}; the evidence is in {folder}")
    if options.short:
        goal = Goal(0, options.faults or len(kinds), 0, kinds, 120.0)
    else:
        goal = Goal(500_000, options.faults or 200, 10, kinds, 3000.0)
    signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGINT))  # so that everything is ended
    with watched(folder), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        result = runner.run(run(folder, Shape(), goal, seed, say))
    summary = write(folder, result, Shape())
    sys.stdout.write(summary)
    return 1 if result.verdict.violations else 0


if __name__ == "__main__":
    sys.exit(main())
