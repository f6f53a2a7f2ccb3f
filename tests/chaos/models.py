"""The models of the run, written as a user would write them: a folder per model, a `model.py`, a `model.toml`.

`fast` is what most callers ask. `gathering` waits a second for a fuller batch, so that much is under way at all times.
`slow` sleeps. `frail` is asked what ends its process, among innocent questions.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tests.chaos.question import FACTOR, PRIME, SALTS

MAX_RUN_S = 1.0
"""Longer is hung: short, as everybody who asks `frail` waits for it."""

_CODE = f"""
import os, random, signal, time
from zlib import crc32
import numpy as np
from modelmq import errors

CRASH, HANG, MEMORY, SLOW, RAISE, RETRY = range(1, 7)


class Model:
    inputs = {{"x": ("INT64", [-1, 2])}}
    outputs = {{"y": ("INT64", [-1, 2])}}

    def load(self, folder):
        self.salt = crc32(folder.parent.name.encode()) % {SALTS}

    def predict(self, batch):
        numbers, acts = batch["x"].T
        for act in acts[acts > 0]:
            self.act(act)
        REST
        return {{"y": np.stack([numbers, (numbers * {FACTOR} + self.salt) % {PRIME}], axis=1)}}

    def act(self, act):
        if act == CRASH:
            os._exit(3)
        if act == HANG:
            time.sleep(3600)
        if act == MEMORY:  # what the kernel does to who takes too much
            os.kill(os.getpid(), signal.SIGKILL)
        if act == SLOW:
            time.sleep(0.2)
        if act == RAISE:
            raise ValueError("as asked")
        if act == RETRY and hasattr(errors, "Retry") and random.random() < 0.3:  # eleven times in a row: never
            raise errors.Retry(0.3)
"""


_SETTINGS = {
    "fast": f"max_run_s = {MAX_RUN_S}\nmax_batch_size = 64\n",
    "gathering": f"max_run_s = {MAX_RUN_S}\nmax_batch_size = 256\nmax_queue_delay_ms = 1000\n",
    "slow": f"max_run_s = {MAX_RUN_S}\nmax_batch_size = 8\n",
    "frail": f"max_run_s = {MAX_RUN_S}\nmax_batch_size = 16\n",
}


def write(folder: Path, names: Iterable[str]) -> None:
    """Those with these names."""
    for name in names:
        version = folder / name / "1"
        version.mkdir(parents=True)
        (version / "model.py").write_text(_CODE.replace("REST", "time.sleep(0.02)" if name == "slow" else "pass"))
        (folder / name / "model.toml").write_text(_SETTINGS[name])
