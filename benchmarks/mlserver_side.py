"""MLServer serving one ONNX file, tuned in its favour, in its own environment `.venv-bench`.

Tuned: no access log, no request metrics, no gzip, httptools and uvloop installed, one model only. Hides the making
of that environment and of the model folder. Knows nothing of what it is compared with.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes import ROOT, child

VENV = ROOT / ".venv-bench"
LOCK = ROOT / "requirements" / "bench.lock"
START_S = 60.0


@dataclass(frozen=True, slots=True)
class Tuning:
    """One way to run MLServer; `max_batch_time_s` is how long its batcher waits for a full batch."""

    parallel_workers: int
    max_batch_time_s: float

    def __str__(self) -> str:
        return f"parallel_workers={self.parallel_workers}, max_batch_time={self.max_batch_time_s * 1000:g} ms"


@dataclass(frozen=True, slots=True)
class Model:
    """What is served: the file, the name in URLs, and the limits both sides share."""

    name: str
    file: Path
    max_batch_size: int
    threads: int


def install() -> None:
    """Make `.venv-bench` from the lock file, unless it stands and was made from this very lock file."""
    stamp = VENV / "made-from.lock"
    if stamp.exists() and stamp.read_bytes() == LOCK.read_bytes():
        return
    shutil.rmtree(VENV, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=True)
    pip = [str(VENV / "bin" / "python"), "-m", "pip", "install", "--quiet", "--require-hashes", "-r", str(LOCK)]
    subprocess.run(pip, check=True)
    shutil.copyfile(LOCK, stamp)


@contextmanager
def serving(model: Model, tuning: Tuning, folder: Path) -> Iterator[tuple[str, int]]:
    """MLServer up and ready; gives the base URL and the pid."""
    folder.mkdir(parents=True)
    port, grpc_port = _free_port(), _free_port()
    _write_settings(folder, model, tuning, port, grpc_port)
    with child([str(VENV / "bin" / "mlserver"), "start", str(folder)], folder / "log", cwd=folder) as process:
        url = f"http://127.0.0.1:{port}"
        _wait_until_ready(f"{url}/v2/models/{model.name}/ready", process, folder / "log")
        yield url, process.pid


def _write_settings(folder: Path, model: Model, tuning: Tuning, port: int, grpc_port: int) -> None:
    server = {
        "debug": False,  # also turns uvicorn's access log off
        "host": "127.0.0.1",
        "http_port": port,
        "grpc_port": grpc_port,
        "metrics_endpoint": None,
        "gzip_enabled": False,
        "parallel_workers": tuning.parallel_workers,
    }
    settings = {
        "name": model.name,
        "implementation": "onnx_model.OnnxModel",
        "max_batch_size": model.max_batch_size,
        "max_batch_time": tuning.max_batch_time_s,
        "parameters": {"uri": str(model.file), "version": "1", "extra": {"threads": model.threads}},
    }
    (folder / "settings.json").write_text(json.dumps(server))
    (folder / "model-settings.json").write_text(json.dumps(settings))
    shutil.copyfile(Path(__file__).parent / "rival" / "onnx_model.py", folder / "onnx_model.py")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _wait_until_ready(url: str, process: subprocess.Popen[str], log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"MLServer ended while starting; see {log}.")
        try:
            with urllib.request.urlopen(url, timeout=1) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise RuntimeError(f"MLServer was not ready within {START_S:g} s; see {log}.")
