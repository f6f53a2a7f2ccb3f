"""Runs the figures and prints them as ratios with their spread: `make bench`, or `benchmarks/run.py --quick`.

Does all its own set-up (wrk, MLServer's environment, a private broker, ModelMQ itself) in a temporary folder, and
ends every process it started, also after an error. A target that is missed is said, and is not an error.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

if __package__ in (None, ""):  # run as a file: the folder above is what `benchmarks` is found in
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks import broker_client, http_path, latency, memory, mlserver_side, ours, overload, topology, wrk
from benchmarks.figure import Result

FIGURES = ("client", "http", "latency", "memory", "topology", "overload")
OF_THEIR_OWN = {"topology", "overload"}
"""Figures that start what they need themselves."""
RESULTS = Path(__file__).with_name("results")


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured."""

    client_rounds: int
    client_s: float
    http: http_path.Plan
    latency_rounds: int
    latency_requests: int
    memory_requests: int
    topology_models: int
    overload: overload.Plan


FULL = Scale(
    5, 6.0, http_path.Plan(5, 10.0, http_path.TUNINGS, 4.0), 7, 500, memory.REQUESTS, topology.MODELS, overload.FULL
)
QUICK = Scale(1, 1.0, http_path.Plan(1, 2.0, (http_path.TUNINGS[1],), 1.0), 2, 100, 2_000, 5, overload.QUICK)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the chosen figures; 0 when all of them could be measured."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="a few seconds per figure, to see that it works")
    parser.add_argument("--only", action="append", choices=FIGURES, help="one figure; may be repeated")
    parser.add_argument("--json", type=Path, help="where to write the results (default: benchmarks/results/)")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that every block ends and with it every child
    folder = Path(tempfile.mkdtemp(prefix="modelmq-bench-"))
    try:
        results = _measure(options.only or FIGURES, QUICK if options.quick else FULL, folder)
    except Exception as error:
        print(f"The benchmarks stopped: {error}\nThe logs are in {folder}.", file=sys.stderr)
        return 1
    shutil.rmtree(folder, ignore_errors=True)
    _report(results, options.json, quick=options.quick)
    return 0


def _measure(figures: Sequence[str], scale: Scale, folder: Path) -> list[Result]:
    if {"http", "memory"} & set(figures):
        wrk.install()
    if "http" in figures:
        _say("Preparing MLServer's environment")
        mlserver_side.install()
    results: list[Result] = []
    log = folder / "clients.log"
    if "topology" in figures:
        _say("Topology")
        results += topology.measure(scale.topology_models, 5, folder, _say)
    if "overload" in figures:
        _say("Overload")
        results += overload.measure(scale.overload, folder / "overload", _say)
    if not set(figures) - OF_THEIR_OWN:
        return results
    with ExitStack() as stack:
        _say("Starting ModelMQ")
        system = stack.enter_context(ours.up(folder))
        if "client" in figures:
            _say("Broker client")
            results += broker_client.measure(system.echo, scale.client_rounds, scale.client_s, log, _say)
        if "latency" in figures:
            _say("One request at a time")
            results += latency.measure(system, scale.latency_rounds, scale.latency_requests, log, _say)
        if "http" in figures:
            _say("Whole path over HTTP")
            results += http_path.measure(system, scale.http, folder, _say)
        if "memory" in figures:
            _say("Memory")
            results += memory.measure(system, scale.memory_requests, folder, _say)
    return results


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _report(results: Sequence[Result], file: Path | None, *, quick: bool) -> None:
    print()
    for result in results:
        print("\n".join(result.lines()))
    if quick:
        print("\nThis was a quick run: it shows that the benchmarks work, its figures mean nothing.")
    if file is None:
        RESULTS.mkdir(exist_ok=True)
        file = RESULTS / time.strftime("%Y-%m-%dT%H%M%S.json")
    machine = {
        "cores": os.cpu_count(),
        "load_average": os.getloadavg(),
        "python": platform.python_version(),
        "system": platform.platform(),
    }
    content = {"quick": quick, "machine": machine, "results": [result.as_json() for result in results]}
    file.write_text(json.dumps(content, indent=2) + "\n")
    print(f"\nWritten to {file}")


if __name__ == "__main__":
    raise SystemExit(main())
