from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from modelmq.broker.processes import identify
from modelmq.errors import ModelMQError
from modelmq.supervisor import processes, records
from modelmq.supervisor.processes import ServiceSpec, how_it_ended

Fake = Callable[..., ServiceSpec]


async def test_it_is_ready_when_it_says_so_and_ends_when_told(fake: Fake) -> None:
    spec = fake("ready(); signal.pause()")
    service = await processes.start(spec)
    await service.until_ready(20)
    (record,) = records.read(spec.run_dir)
    assert record.name == "gateway"
    assert record.process == identify(service.pid)
    await service.stop()
    assert await service.ended() == -signal.SIGTERM
    assert list(records.read(spec.run_dir)) == []
    await service.stop()


async def test_it_has_a_session_of_its_own_and_only_the_files_it_needs(fake: Fake, tmp_path: Path) -> None:
    with (tmp_path / "secret").open("w"):
        seen = "os.getsid(0) == os.getpid(), len(os.listdir('/proc/self/fd'))"
        service = await processes.start(fake(f"print({seen}, flush=True); ready(); signal.pause()"))
        await service.until_ready(20)
        await service.stop()
    # 0, 1, 2, the ready pipe, and the folder that is being listed.
    assert (tmp_path / "logs" / "gateway.log").read_text().endswith("True 5\n")


async def test_an_end_before_ready_is_told_with_its_last_words(fake: Fake) -> None:
    service = await processes.start(fake("sys.exit('models_dir is empty')"))
    with pytest.raises(ModelMQError, match=r"^The gateway ended with status 1 before it was ready: models_dir is"):
        await service.until_ready(20)


async def test_a_death_by_signal_is_named(fake: Fake) -> None:
    service = await processes.start(fake("os.kill(os.getpid(), 9)"))
    with pytest.raises(ModelMQError, match=r"was ended by SIGKILL before it was ready; its log is .*gateway.log"):
        await service.until_ready(20)


async def test_one_that_stays_silent_is_given_up(fake: Fake) -> None:
    service = await processes.start(fake("signal.pause()"))
    with pytest.raises(ModelMQError, match=r"was not ready after 0\.1 s"):
        await service.until_ready(0.1)
    await service.stop()


async def test_one_that_does_not_drain_is_killed_with_its_children(fake: Fake) -> None:
    code = """
import subprocess
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen([sys.executable, "-c", "import signal; signal.signal(15, signal.SIG_IGN); signal.pause()"])
ready(); time.sleep(1000)
"""
    service = await processes.start(fake(code, drain_s=0.1))
    await service.until_ready(20)
    children = psutil.Process(service.pid).children()
    assert len(children) == 1
    await service.stop()
    assert await service.ended() == -signal.SIGKILL
    _, alive = await asyncio.to_thread(psutil.wait_procs, children, 10)
    assert alive == []


async def test_it_ends_when_its_supervisor_is_killed(tmp_path: Path) -> None:
    (tmp_path / "forever.py").write_text("import os, signal\nprint(os.getpid(), flush=True)\nsignal.pause()\n")
    code = (
        "import signal, subprocess; from modelmq.supervisor.processes import child_command;"
        "subprocess.Popen(child_command('forever'), start_new_session=True); signal.pause()"
    )
    environ = {**os.environ, "PYTHONPATH": str(tmp_path)}
    supervisor = await asyncio.to_thread(
        subprocess.Popen, [sys.executable, "-c", code], stdout=subprocess.PIPE, env=environ
    )
    assert supervisor.stdout is not None
    child = psutil.Process(int(await asyncio.to_thread(supervisor.stdout.readline)))
    supervisor.kill()
    await asyncio.to_thread(child.wait, 10)
    supervisor.communicate()


@pytest.mark.parametrize(
    ("status", "words"), [(0, "ended with status 0"), (-9, "was ended by SIGKILL"), (-99, "was ended by signal 99")]
)
def test_how_it_ended(status: int, words: str) -> None:
    assert how_it_ended(status) == words
