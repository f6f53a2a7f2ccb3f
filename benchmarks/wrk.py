"""Runs wrk against one URL and reads what it counted.

wrk itself counts statuses of 400 and above, and socket errors; the script makes it print them as JSON with exact
latencies. Answers' bodies are checked elsewhere: in Lua it would cost the faster side more.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SCRIPT = Path(__file__).with_name("wrk.lua")
MARK = "measured "


@dataclass(frozen=True, slots=True)
class Wrk:
    """One run of wrk; `errors` counts answers with another status than 2xx or 3xx, and every socket error."""

    requests: int
    seconds: float
    errors: int
    p50_ms: float
    p99_ms: float

    @property
    def rate(self) -> float:
        """Requests per second."""
        return self.requests / self.seconds


def install() -> None:
    """Make sure wrk is there: from the system's packages where this user may, else one sentence."""
    if shutil.which("wrk"):
        return
    apt = shutil.which("apt-get")
    sudo = [] if os.geteuid() == 0 else ["sudo", "-n"]
    if apt and (not sudo or shutil.which("sudo")):
        subprocess.run([*sudo, apt, "install", "-y", "-q", "wrk"], check=False)
    if not shutil.which("wrk"):
        raise RuntimeError("wrk is not installed; install it with your system's packages (Debian: apt install wrk).")


def load(url: str, connections: int, duration_s: float, bodies: Path) -> Wrk:
    """Load the URL with POSTs whose bodies are the lines of a file, in turn."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{duration_s:g}s", "--timeout", "30s", "-s", str(SCRIPT), url]
    done = subprocess.run(
        command, env={**os.environ, "BODIES": str(bodies)}, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"wrk failed: {done.stderr.strip() or done.stdout.strip()}")
    return read_output(done.stdout.splitlines())


def read_output(lines: Sequence[str]) -> Wrk:
    """What the script printed among wrk's own lines; ValueError when it printed nothing."""
    for line in lines:
        if line.startswith(MARK):
            counted = json.loads(line.removeprefix(MARK))
            return Wrk(
                requests=counted["requests"],
                seconds=counted["duration_us"] / 1e6,
                errors=counted["status"] + counted["connect"] + counted["read"] + counted["write"] + counted["timeout"],
                p50_ms=counted["p50_us"] / 1e3,
                p99_ms=counted["p99_us"] / 1e3,
            )
    raise ValueError("wrk printed no measurement.")
