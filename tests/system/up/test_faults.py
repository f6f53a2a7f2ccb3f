"""Processes that are killed: the supervisor, a service under load, RabbitMQ; and what the next start makes of it."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import msgspec
import psutil
import pytest

from modelmq.broker import node
from modelmq.broker.processes import identify
from modelmq.supervisor import records
from modelmq.supervisor.records import Record
from tests.system.up.running import PATIENCE_S, Starter, Up, write_model


def kill(pid: int) -> None:
    psutil.Process(pid).kill()


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """A process of somebody else's."""
    process = subprocess.Popen(["sleep", "600"])
    yield process
    process.kill()
    process.wait()


def test_a_killed_run_is_taken_over_by_the_next_or_cleared_without_one(
    own: Callable[..., Up], stranger: subprocess.Popen[bytes]
) -> None:
    first = own().until_serving()
    broker = node.find(first.state / "node")
    assert broker is not None
    # A stopped service cannot drain by itself, so it is the next start that must end it.
    stuck = first.record("gateway").process
    psutil.Process(stuck.pid).suspend()
    kill(first.pid)
    first.ended()
    down = first.command("status", status=1)
    assert "does not answer" in down
    # The pid of one on record may be another's by now.
    now = identify(stranger.pid)
    assert now is not None
    recycled = msgspec.structs.replace(now, started=now.started - 1)
    records.write(first.state / "run", Record("worker-default-9", recycled))

    second = own().until_serving()
    assert "Ended what an earlier run had left: gateway" in second.text
    assert identify(stuck.pid) != stuck
    adopted = node.find(second.state / "node")
    assert adopted is not None
    assert adopted.pid == broker.pid
    assert stranger.poll() is None
    assert second.ask().json()["outputs"][0]["data"] == [42.0]

    # Killed once more, it can be cleared without a new one.
    services = [psutil.Process(record.process.pid) for record in records.read(second.state / "run")]
    assert len(services) >= 2
    kill(second.pid)
    second.ended()
    _, alive = psutil.wait_procs(services, PATIENCE_S)
    assert alive == []
    assert second.command("broker", "stop") == "Stopped.\n"
    assert first.left() == second.left() == []
    assert "No RabbitMQ runs" in second.command("broker", "stop")


def test_runs_killed_on_the_way_up_are_no_obstacle(own: Callable[..., Up]) -> None:
    """Each gets further than the one that was killed before it."""
    killed = []
    for words in ("starting a private RabbitMQ", "✓ RabbitMQ", "✓ topology"):
        killed.append(own())
        killed[-1].until(words)
        kill(killed[-1].pid)
        killed[-1].ended()
    last = own().until_serving()
    assert last.ask().status_code == 200
    last.stopped()
    assert [run.left() for run in killed] == [[], [], []]


class Load:
    """Asks without a pause until told to stop, and keeps each status that came."""

    def __init__(self, up: Up) -> None:
        self.statuses: list[int] = []
        self._up = up
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(4)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(PATIENCE_S)

    def _run(self) -> None:
        while not self._stop.is_set():
            self.statuses.append(self._up.ask().status_code)

    def until_more(self, count: int) -> None:
        goal = len(self.statuses) + count
        while len(self.statuses) < goal and any(thread.is_alive() for thread in self._threads):
            self._stop.wait(0.01)
        assert len(self.statuses) >= goal


def test_services_and_rabbitmq_that_are_killed_come_back(own: Callable[..., Up]) -> None:
    up = own().until_serving()
    worker, gateway = up.record("worker-default-1").process.pid, up.record("gateway").process.pid
    children = psutil.Process(worker).children(recursive=True)
    assert children
    with Load(up) as load:
        load.until_more(20)
        kill(worker)
        load.until_more(50)
    assert set(load.statuses) == {200}
    up.record("worker-default-1", other_than=worker)
    assert psutil.wait_procs(children, PATIENCE_S)[1] == []
    assert "! The worker-default-1 was ended by SIGKILL" in up.text

    kill(gateway)
    up.record("gateway", other_than=gateway)
    until_answered(up)
    assert "! The gateway was ended by SIGKILL" in up.text

    broker = node.find(up.state / "node")
    assert broker is not None
    kill(broker.pid)
    up.until("RabbitMQ ended unasked")
    until_answered(up)
    after = node.find(up.state / "node")
    assert after is not None
    assert after.pid != broker.pid
    assert after.amqp_port == broker.amqp_port
    up.stopped()


def test_a_service_that_keeps_dying_ends_the_run(own: Callable[..., Up]) -> None:
    up = own().until_serving()
    pid = 0
    for _ in range(6):
        pid = up.record("gateway", other_than=pid).process.pid
        kill(pid)
    up.until("It ended 6 times within 60 s, so it is not started again.")
    assert up.ended() == 1
    assert up.left() == []


SLOW_TO_LOAD = """
    import time
    from pathlib import Path

    class Model:
        inputs = {"x": ("FP64", [-1])}
        outputs = {"y": ("FP64", [-1])}
        def load(self, *_):
            Path("FOLDER/loading").touch()
            while not Path("FOLDER/go").exists():
                time.sleep(0.005)
        def predict(self, batch):
            return {"y": batch["x"]}
"""


def test_status_tells_what_is_missing(own: Callable[..., Up], start: Starter, folder: Path) -> None:
    write_model(folder / "models", "slow", SLOW_TO_LOAD.replace("FOLDER", str(folder)))
    up = own()
    watch, end = threading.Event(), time.monotonic() + PATIENCE_S
    while not (folder / "loading").exists():  # the model's process makes it, which gives no other signal
        assert time.monotonic() < end, up.text
        watch.wait(0.02)
    half = json.loads(up.command("status", "-o", "json", status=1))
    assert half["broker"]["state"].startswith("running")
    assert any("slow" in problem or "gateway" in problem for problem in half["problems"]), half
    (folder / "go").touch()
    up.until_serving()
    assert json.loads(up.command("status", "-o", "json"))["problems"] == []
    up.stopped()
    down = json.loads(up.command("status", "-o", "json", status=1))
    assert (down["gateway"]["state"], down["broker"]["state"]) == ("unreachable", "unreachable")
    assert len(down["problems"]) == 2


def until_answered(up: Up) -> None:
    """The first good answer; until then there may be no gateway to refuse."""
    watch = threading.Event()
    for _ in range(int(PATIENCE_S / 0.1)):
        with contextlib.suppress(httpx.TransportError):
            if up.ask().status_code == 200:
                return
        watch.wait(0.1)
    raise AssertionError(up.text)


def test_an_interrupt_while_a_service_is_down(own: Callable[..., Up]) -> None:
    up = own().until_serving()
    kill(up.record("gateway").process.pid)
    up.until("The gateway was ended by SIGKILL")
    up.signal(signal.SIGINT)
    assert up.ended() == 0
    assert up.left() == []
