"""The law of a model's process: what a model does is a value for the worker, and no process outlives its worker."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from modelmq.errors import ModelLoadError
from modelmq.runtimes import ModelSettings, ModelSource
from modelmq.worker import executor
from modelmq.worker.executor import Died, ModelProcess
from modelmq.worker.wire import Raised

MODEL = """
import ctypes, os, sys, time
import numpy as np

class Model:
    inputs = {"x": ("FP64", [-1])}
    outputs = {"y": ("FP64", [-1])}

    def predict(self, batch):
        x = batch["x"]
        match float(x.min()):
            case -1: raise ValueError("poison")
            case -2: os._exit(7)
            case -3: ctypes.string_at(0)
            case -4: time.sleep(3600)
            case -5: return {"y": x[:-1]}
            case -6: return [x]
            case -7: sys.stdout.write("noise" * 1000); os.write(1, b"more noise")
            case -8: return {"y": x.astype(complex)}
            case -9: raise MemoryError
            case -10: sys.exit(3)
            case -11: return {"y": np.array([float(os.environ["OMP_NUM_THREADS"])] * len(x))}
            case -12: return {"y": np.array([float(any(k.startswith("MODELMQ_") for k in os.environ))] * len(x))}
        return {"y": x * 2}
"""

Start = Callable[..., Awaitable[ModelProcess]]


def source(folder: Path, code: str = MODEL, **settings: object) -> ModelSource:
    path = folder / "model.py"
    path.write_text(textwrap.dedent(code))
    return ModelSource("m", "1", path, ModelSettings(runtime="python", **settings))  # type: ignore[arg-type]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    started: list[ModelProcess] = []

    async def starter(
        code: str = MODEL, *, load_timeout_s: float = 30, max_reply_bytes: int = 10**6, **settings: object
    ) -> ModelProcess:
        process = await executor.start(
            source(tmp_path, code, **settings),
            load_timeout_s=load_timeout_s,
            on_end=lambda: None,
            max_reply_bytes=max_reply_bytes,
        )
        started.append(process)
        return process

    yield starter
    for process in started:
        await process.close()
        assert not psutil.pid_exists(process.pid)


def until(condition: Callable[[], bool]) -> None:
    """For what another process does and gives no other signal of."""
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def x(*values: float) -> dict[str, np.ndarray]:
    return {"x": np.array(values, np.float64)}


async def run(process: ModelProcess, *values: float, max_run_s: float = 30) -> object:
    return await process.run(x(*values), max_run_s=max_run_s)


async def doubles(process: ModelProcess) -> bool:
    result = await run(process, 1, 2, 3)
    assert isinstance(result, dict)
    return result["y"].tolist() == [2, 4, 6]


async def test_computes_and_tells_its_signature(start: Start) -> None:
    process = await start()
    assert process.signature.batched
    assert [spec.name for spec in process.signature.inputs] == ["x"]
    assert await doubles(process)
    big = np.random.default_rng(0).random(500_000)
    result = await process.run({"x": big}, max_run_s=30)
    assert isinstance(result, dict)
    assert np.array_equal(result["y"], big * 2)


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (-1, "Model m raised ValueError: poison"),
        (-5, "rows"),
        (-6, "expected a dict"),
        (-8, "complex"),
        (-9, "MemoryError"),
    ],
)
async def test_a_model_that_raises_goes_on(start: Start, value: float, sentence: str) -> None:
    process = await start()
    result = await run(process, 5, value, 6)
    assert isinstance(result, Raised)
    assert result.code == "failed"
    assert sentence in result.message
    assert await doubles(process)


ASKS_AGAIN = """
    from modelmq import Retry

    class Own(Retry):
        def __init__(self):
            pass

    class Model:
        inputs = {"x": ("FP64", [-1])}
        outputs = {"y": ("FP64", [-1])}
        def predict(self, batch):
            match int(batch["x"][0]):
                case 1: raise Retry(2.5, "the shop is closed")
                case 2: raise Retry(3)
                case 3:
                    try: raise OSError("no line")
                    except OSError as error: raise Retry(4) from error
                case 4: raise Retry(-1)
                case 5: raise Own
            return {"y": batch["x"] * 2}
"""


async def test_a_model_may_ask_for_a_later_try(start: Start, capfd: pytest.CaptureFixture[str]) -> None:
    process = await start(ASKS_AGAIN)
    assert [await run(process, value) for value in (1, 2, 3)] == [
        Raised("failed", "the shop is closed", 2.5),
        Raised("failed", "", 3.0),
        Raised("failed", "OSError: no line", 4.0),
    ]
    assert "Traceback" not in capfd.readouterr().err  # it is no mistake
    for value, sentence in ((4, "ValueError: Retry(after_s=-1): the delay must be"), (5, "Own")):
        result = await run(process, value)
        assert isinstance(result, Raised)
        assert (sentence in result.message, result.after_s) == (True, None)
    assert await run(process, 6) != Raised("failed", "")


@pytest.mark.parametrize(("value", "reason"), [(-2, "exited with status 7"), (-3, "SIGSEGV"), (-10, "status 3")])
async def test_a_model_that_ends_its_process_is_reported(start: Start, value: float, reason: str) -> None:
    process = await start()
    result = await run(process, value)
    assert isinstance(result, Died)
    assert reason in result.reason
    assert not process.alive
    assert isinstance(await run(process, 1), Died)


async def test_a_hung_model_is_ended(start: Start) -> None:
    process = await start()
    result = await run(process, -4, max_run_s=0.2)
    assert isinstance(result, Died)
    assert "max_run_s" in result.reason
    assert not psutil.pid_exists(process.pid)


async def test_a_killed_process_is_noticed_while_idle(tmp_path: Path) -> None:
    ended = asyncio.Event()
    process = await executor.start(source(tmp_path), load_timeout_s=30, on_end=ended.set)
    os.kill(process.pid, signal.SIGKILL)
    await asyncio.wait_for(ended.wait(), 10)
    assert not process.alive
    assert isinstance(await run(process, 1), Died)
    await process.close()


async def test_prints_never_reach_the_socket(start: Start) -> None:
    process = await start()
    result = await run(process, -7)
    assert isinstance(result, dict)
    assert await doubles(process)


async def test_threads_as_told_and_no_secrets(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELMQ_BROKER_PASSWORD", "secret")
    process = await start(threads=3)
    threads, secrets = await run(process, -11), await run(process, -12)
    assert isinstance(threads, dict)
    assert isinstance(secrets, dict)
    assert threads["y"].tolist() == [3.0]
    assert secrets["y"].tolist() == [0.0]


async def test_text_travels_both_ways(start: Start) -> None:
    process = await start(
        """
        class Model:
            inputs = {"text": ("BYTES", [-1])}
            outputs = {"upper": ("BYTES", [-1])}
            def predict(self, batch):
                return {"upper": [value.decode().upper() for value in batch["text"]]}
        """
    )
    result = await process.run({"text": np.array([b"a", "öb".encode(), b""], object)}, max_run_s=30)
    assert isinstance(result, dict)
    assert result["upper"].tolist() == [b"A", "ÖB".encode(), b""]


async def test_a_warm_up_that_raises_is_skipped(start: Start) -> None:
    process = await start(MODEL.replace("case -1:", "case 0 | -1:"))
    assert await doubles(process)


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        ("raise RuntimeError('no weights')", "no weights"),
        ("import os; os._exit(4)", "exited with status 4 while loading"),
        ("not python", "model.py"),
        ("x = 1", "no class"),
    ],
)
async def test_a_model_that_does_not_load_says_why(start: Start, code: str, sentence: str) -> None:
    with pytest.raises(ModelLoadError, match=sentence):
        await start(code)


async def test_loading_has_a_limit(start: Start) -> None:
    with pytest.raises(ModelLoadError, match="load_timeout_s"):
        await start("import time; time.sleep(3600)", load_timeout_s=0.5)


async def test_the_terminals_signals_do_not_end_it(start: Start) -> None:
    process = await start()
    os.kill(process.pid, signal.SIGINT)
    os.kill(process.pid, signal.SIGTERM)
    assert await doubles(process)


RESTLESS = """
import os, signal, subprocess, sys, threading, time
from pathlib import Path

class Model:
    inputs = {"x": ("FP64", [-1])}
    outputs = {"y": ("FP64", [-1])}

    def predict(self, batch):
        x = batch["x"]
        match float(x.min()):
            case -1:
                pid = os.fork()
                if pid == 0:
                    time.sleep(3600)
                return {"y": x * 0 + pid}
            case -2:
                if os.fork() == 0:
                    return {"y": x}  # the fork goes on as if it were the model
            case -3:
                return {"y": x * 0 + subprocess.Popen(["sleep", "3600"]).pid}
            case -4:
                threading.Thread(target=time.sleep, args=(3600,)).start()
            case -5:
                os.chdir("/")
                sys.path.clear()
                os.environ.clear()
            case -6:
                for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGPIPE, signal.SIGALRM):
                    signal.signal(number, lambda *_: sys.exit(5))
                signal.setitimer(signal.ITIMER_REAL, 3600)
            case -7:
                sys.stdout.close(); sys.stderr.close(); os.close(1); os.close(2)
            case -8:
                raise ValueError("\\ud800 is half a character")
            case -9:
                class Hostile(Exception):
                    def __str__(self): raise RuntimeError("no words")
                raise Hostile
        return {"y": x * 2}
"""


@pytest.mark.parametrize("value", [-1, -2, -3, -4, -5, -6, -7, -8, -9])
async def test_whatever_a_model_does_to_its_process_it_goes_on_and_ends_when_told(start: Start, value: float) -> None:
    """Forks, starts programs and threads, changes the folder, takes signals, closes its output, raises what it may."""
    process = await start(RESTLESS)
    result = await run(process, value)
    assert isinstance(result, Raised) == (value in (-8, -9))
    assert isinstance(await run(process, -9), Raised)
    assert await doubles(process)
    assert process.alive


@pytest.mark.parametrize("value", [-1, -3])
async def test_what_a_model_started_ends_with_it(start: Start, value: float) -> None:
    process = await start(RESTLESS)
    result = await run(process, value)
    assert isinstance(result, dict)
    started = psutil.Process(int(result["y"][0]))
    await process.close()
    psutil.wait_procs([started], timeout=10)
    assert not started.is_running() or started.status() == psutil.STATUS_ZOMBIE


async def test_the_end_is_noticed_while_a_fork_of_the_model_lives(start: Start) -> None:
    process = await start(RESTLESS.replace('return {"y": x * 0 + pid}', "os._exit(9)"))
    result = await asyncio.wait_for(run(process, -1, max_run_s=3600), 20)
    assert isinstance(result, Died)
    assert "exited with status 9" in result.reason


async def test_the_limit_of_a_run_holds_even_if_something_else_has_the_socket(start: Start) -> None:
    process = await start(
        """
        import os, subprocess

        class Model:
            inputs = {"x": ("FP64", [-1])}
            outputs = {"y": ("FP64", [-1])}

            def predict(self, batch):
                if batch["x"][0] == 0:
                    return {"y": batch["x"]}
                for name in os.listdir("/proc/self/fd"):
                    try:
                        os.set_inheritable(int(name), True)
                    except OSError:
                        pass
                subprocess.Popen(["sleep", "3600"], close_fds=False)
                os._exit(9)
        """
    )
    result = await asyncio.wait_for(run(process, 1, max_run_s=0.5), 20)
    assert isinstance(result, Died)
    assert "exited with status 9" in result.reason


async def test_it_is_warm_before_the_first_request(start: Start) -> None:
    process = await start(
        """
        class Model:
            inputs = {"x": ("FP64", [-1])}
            outputs = {"y": ("INT64", [-1])}
            runs = 0
            def predict(self, batch):
                self.runs += 1
                return {"y": [self.runs] * len(batch["x"])}
        """
    )
    result = await run(process, 1)
    assert isinstance(result, dict)
    assert result["y"].tolist() == [2]


WORKER = """
import asyncio, sys
from pathlib import Path
import numpy as np
from modelmq.runtimes import ModelSettings, ModelSource
from modelmq.worker import executor

async def main():
    source = ModelSource("m", "1", Path(sys.argv[1]), ModelSettings(runtime="python"))
    process = await executor.start(source, load_timeout_s=30, on_end=lambda: None)
    await process.run({"x": np.array([-4.0])}, max_run_s=3600)

asyncio.run(main())
"""


STARTS = {
    "nothing": "pass",
    "a fork": "os.fork()",
    "a program": "subprocess.Popen(['sleep', '3600'])",
    "a daemon": "subprocess.run('setsid sh -c \"sleep 3600 & sleep 3600\" &', shell=True)",
    "a pool": "Model.pool = multiprocessing.Pool(2)",
}


@pytest.mark.parametrize("started", STARTS.values(), ids=STARTS)
def test_nothing_outlives_its_worker_even_while_it_computes(tmp_path: Path, started: str) -> None:
    """Killed, the worker can end nobody; and of what the model started, some is in sessions of its own."""
    computes = tmp_path / "computes"
    code = f"case -4: {started}; open({str(computes)!r}, 'w').close(); time.sleep(3600)"
    model = "import multiprocessing, subprocess\n" + MODEL.replace("case -4: time.sleep(3600)", code)
    worker = subprocess.Popen([sys.executable, "-c", WORKER, str(source(tmp_path, model).path)])
    try:
        until(computes.exists)
        below = psutil.Process(worker.pid).children(recursive=True)
    finally:
        worker.kill()
        worker.wait()
    assert len(below) >= 2 + ("pass" not in started)
    _, alive = psutil.wait_procs(below, timeout=10)
    assert alive == []


async def test_a_pool_of_the_model_ends_when_the_model_says_so(start: Start) -> None:
    """Its processes heed the signals that the model's own does not."""
    process = await start(
        """
        import multiprocessing

        class Model:
            inputs = {"x": ("FP64", [-1])}
            outputs = {"y": ("FP64", [-1])}

            def predict(self, batch):
                with multiprocessing.Pool(2) as pool:  # ends them by SIGTERM
                    return {"y": pool.map(abs, batch["x"].tolist())}
        """
    )
    result = await run(process, -1, 2, -3)
    assert isinstance(result, dict)
    assert result["y"].tolist() == [1, 2, 3]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
async def test_a_guardian_that_is_killed_or_stopped_leaves_nothing(start: Start, number: signal.Signals) -> None:
    process = await start(RESTLESS)
    result = await run(process, -3)
    assert isinstance(result, dict)
    started = psutil.Process(int(result["y"][0]))
    os.kill(psutil.Process(process.pid).ppid(), number)
    await process.close()
    _, alive = psutil.wait_procs([started], timeout=10)
    assert alive == []


@pytest.fixture
def ended_groups(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The process groups that are ended by number."""
    ended: list[int] = []
    killpg = os.killpg

    def noting(group: int, number: int) -> None:
        ended.append(group)
        killpg(group, number)

    monkeypatch.setattr(os, "killpg", noting)
    return ended


async def test_what_a_killed_guardian_leaves_is_ended_at_once_and_never_by_a_number_that_may_be_anothers(
    start: Start, ended_groups: list[int]
) -> None:
    process = await start(RESTLESS)
    result = await run(process, -3)
    assert isinstance(result, dict)
    guardian = psutil.Process(process.pid).ppid()
    started = psutil.Process(int(result["y"][0]))
    os.kill(guardian, signal.SIGKILL)
    _, alive = await asyncio.to_thread(psutil.wait_procs, [started], timeout=10)
    assert alive == []
    for _ in range(2):
        await process.close()
    assert ended_groups == [guardian]


async def test_where_the_guardian_ended_by_itself_its_number_is_not_used(start: Start, ended_groups: list[int]) -> None:
    process = await start()
    assert isinstance(await run(process, -2), Died)
    await process.close()
    assert ended_groups == []


GREEDY = """
import subprocess, sys
import numpy as np

class Model:
    inputs = {"x": ("FP64", [-1])}
    outputs = {"y": ("FP64", [-1])}

    def predict(self, batch):
        x = batch["x"]
        if x[0] == -1:
            return {"y": x * 0 + np.ones(len(x) * 10**7).sum()}  # 80 MB per row
        if x[0] == -2:
            code = "bytearray(300_000_000)"
            return {"y": x * 0 + subprocess.run([sys.executable, "-c", code], stderr=subprocess.DEVNULL).returncode}
        return {"y": x * 2}
"""


async def test_memory_has_a_limit_and_the_process_goes_on(start: Start) -> None:
    process = await start(GREEDY, max_memory_bytes=256 * 1024**2)
    fits = await run(process, -1)
    assert isinstance(fits, dict)
    assert fits["y"].tolist() == [10**7]
    greedy = await run(process, -1, -1, -1, -1)
    assert isinstance(greedy, Raised)
    assert "MemoryError: Unable to allocate" in greedy.message
    assert "max_memory_bytes = 268435456" in greedy.message
    too_large = await process.run({"x": np.zeros(40_000_000)}, max_run_s=30)
    assert isinstance(too_large, Raised)
    assert "max_memory_bytes" in too_large.message
    started = await run(process, -2)
    assert isinstance(started, dict)
    assert started["y"].tolist() == [1.0]
    assert await doubles(process)


async def test_a_model_that_needs_more_memory_than_it_may_have_does_not_load(start: Start) -> None:
    code = GREEDY + "\n    weights = np.ones(40_000_000)"
    with pytest.raises(ModelLoadError, match=r"MemoryError.*max_memory_bytes = 268435456\)\.$"):
        await start(code, max_memory_bytes=256 * 1024**2)


async def test_the_kernel_ends_the_model_first_when_memory_runs_out(start: Start) -> None:
    def score(pid: int) -> int:
        return int(Path(f"/proc/{pid}/oom_score").read_text())

    process = await start()
    guardian = psutil.Process(process.pid).ppid()
    assert score(process.pid) > score(os.getpid()) + 200
    assert score(process.pid) > score(guardian) + 200


async def test_outputs_that_no_reply_can_hold_are_not_taken(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor, "MOST_OUTPUT_BYTES", 4_000_000)
    process = await start(max_reply_bytes=1_000_000)
    big = np.arange(600_000.0)
    small = await process.run({"x": big[:499_000]}, max_run_s=30)
    assert isinstance(small, dict)
    for _ in range(2):
        result = await process.run({"x": big}, max_run_s=30)
        assert isinstance(result, Raised)
        assert result.code == "failed"
        assert "one run may give 4000000" in result.message
        assert await doubles(process)


HOG = """
import asyncio, os, sys
from pathlib import Path
import numpy as np
from modelmq.runtimes import ModelSettings, ModelSource
from modelmq.worker import executor

async def main():
    Path(sys.argv[2], "cgroup.procs").write_text(str(os.getpid()))
    ballast = np.ones(20_000_000)  # more than a model has before it is greedy
    source = ModelSource("m", "1", Path(sys.argv[1]), ModelSettings(runtime="python"))
    for value in (-13.0, 4.0):
        process = await executor.start(source, load_timeout_s=30, on_end=lambda: None)
        print(await process.run({"x": np.array([value])}, max_run_s=30))
        await process.close()

asyncio.run(main())
"""


@pytest.fixture
def little_memory() -> Iterator[Path]:
    """A control group with 400 MB, for who may make one."""
    for root, limit in (("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")):
        group = Path(root, f"modelmq-test-{os.getpid()}")
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            if (group / limit).exists():
                (group / limit).write_text(str(400 * 1024**2))
                yield group
                return
        finally:
            group.rmdir()
    pytest.skip("no right to limit memory by a control group")


def test_when_the_machine_has_no_memory_left_the_model_ends_and_not_its_worker(
    tmp_path: Path, little_memory: Path
) -> None:
    greedy = "case -13: x = [np.ones(10**7) for _ in range(100)]\n            case -12:"
    path = source(tmp_path, MODEL.replace("case -12:", greedy)).path
    done = subprocess.run(
        [sys.executable, "-c", HOG, str(path), str(little_memory)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.splitlines() == ["Died(reason='was ended by SIGKILL')", "{'y': array([8.])}"], done.stderr


LOOKING = """
import time
from pathlib import Path

class Model:
    inputs = {"x": ("FP64", [-1])}
    outputs = {"y": ("FP64", [-1])}

    def predict(self, batch, cancelled):
        if batch["x"][0] == 100:
            Path("FOLDER/entered").touch()
            while not cancelled():
                time.sleep(0.001)
            raise RuntimeError("nobody waits")
        return {"y": batch["x"] * 2 + cancelled()}
"""


async def test_a_model_that_looks_stops_when_nobody_waits_and_the_next_run_is_not_meant(
    start: Start, tmp_path: Path
) -> None:
    process = await start(LOOKING.replace("FOLDER", str(tmp_path)))
    running = asyncio.create_task(run(process, 100))
    while not (tmp_path / "entered").exists():  # noqa: ASYNC110 - another process makes it, which gives no other signal
        await asyncio.sleep(0.005)
    process.nobody_waits()
    process.nobody_waits()
    result = await running
    assert isinstance(result, Raised)
    assert "nobody waits" in result.message
    process.nobody_waits()  # too late: it is over
    assert await doubles(process)
    assert await doubles(process)


async def test_a_model_that_does_not_look_is_not_disturbed(start: Start) -> None:
    process = await start()
    for _ in range(20):
        running = asyncio.create_task(doubles(process))
        await asyncio.sleep(0)
        process.nobody_waits()
        assert await running
    await process.close()
    process.nobody_waits()
