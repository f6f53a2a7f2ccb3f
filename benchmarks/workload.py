"""The requests every HTTP figure sends: real digits as Open Inference Protocol JSON, and the answers they must get.

Expected answers come from onnxruntime in this process, so a server that mixes up the rows of a batch is found out.
"""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

ROWS = 200
TOLERANCE = 1e-3
JSON_HEADERS = {"Content-Type": "application/json"}


@dataclass(frozen=True, slots=True)
class Case:
    """One request body and the outputs it must be answered with, flat, by name."""

    body: bytes
    outputs: dict[str, tuple[float, ...]]


def digits_cases(model_file: Path, rows: int = ROWS) -> list[Case]:
    """The first digits of scikit-learn's data set, each as a request of one row for the one input of this ONNX file."""
    import onnxruntime  # noqa: PLC0415 - only the HTTP figures need it
    from sklearn.datasets import load_digits  # noqa: PLC0415 - likewise

    session = onnxruntime.InferenceSession(str(model_file), providers=["CPUExecutionProvider"])
    (tensor,) = session.get_inputs()
    names = [output.name for output in session.get_outputs()]
    cases = []
    for pixels in load_digits().data[:rows].astype(np.float32):
        row = pixels.reshape([1, *tensor.shape[1:]])
        arrays = session.run(None, {tensor.name: row})
        asked = {"name": tensor.name, "shape": list(row.shape), "datatype": "FP32", "data": row.ravel().tolist()}
        cases.append(
            Case(
                json.dumps({"inputs": [asked]}, separators=(",", ":")).encode(),
                {name: tuple(map(float, a.ravel())) for name, a in zip(names, arrays, strict=True)},
            )
        )
    return cases


def write_bodies(cases: Sequence[Case], file: Path) -> Path:
    """One body per line, as the wrk script reads them."""
    file.write_bytes(b"\n".join(case.body for case in cases) + b"\n")
    return file


def why_wrong(answer: bytes, case: Case) -> str | None:
    """None when the answer holds every expected output within TOLERANCE, else one sentence."""
    outputs = {output["name"]: output["data"] for output in json.loads(answer)["outputs"]}
    for name, expected in case.outputs.items():
        got = np.asarray(outputs.get(name, ()), dtype=float).ravel()
        if got.shape != (len(expected),) or not np.allclose(got, expected, atol=TOLERANCE):
            return f"Output '{name}' is {got.tolist()}, expected {list(expected)}."
    return None


class Connection:
    """One kept-alive HTTP connection that posts to one path."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._path = parts.path
        self._http = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)

    def post(self, body: bytes) -> bytes:
        """The body of a 200; RuntimeError for any other status."""
        self._http.request("POST", self._path, body, JSON_HEADERS)
        answer = self._http.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{self._path} answered {answer.status}: {content[:300]!r}")
        return content

    def close(self) -> None:
        """Idempotent."""
        self._http.close()


def verify(url: str, cases: Sequence[Case], connections: int = 16) -> None:
    """Ask every case, several at once so that batches form; RuntimeError for the first wrong answer."""
    problems: list[str] = []

    def ask(share: Sequence[Case]) -> None:
        connection = Connection(url)
        try:
            for case in share:
                wrong = why_wrong(connection.post(case.body), case)
                if wrong:
                    problems.append(wrong)
        except Exception as error:
            problems.append(str(error))
        finally:
            connection.close()

    threads = [threading.Thread(target=ask, args=(cases[i::connections],)) for i in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if problems:
        raise RuntimeError(f"{url}: {problems[0]}")


@contextmanager
def spot_checks(url: str, cases: Sequence[Case], every_s: float = 0.05) -> Iterator[None]:
    """While the block runs, ask a case now and then and compare; RuntimeError at its end for a wrong answer."""
    stop = threading.Event()
    problems: list[str] = []

    def watch() -> None:
        connection = Connection(url)
        number = 0
        try:
            while not stop.wait(every_s):
                case = cases[number % len(cases)]
                wrong = why_wrong(connection.post(case.body), case)
                if wrong:
                    problems.append(wrong)
                number += 1
        except Exception as error:
            problems.append(str(error))
        finally:
            connection.close()

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    if problems:
        raise RuntimeError(f"{url}: a spot check under load failed: {problems[0]}")
