from __future__ import annotations

import gc
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelmq import process
from modelmq.errors import ConfigError, NodeError
from modelmq.events import ServiceStarted
from modelmq.process import Process
from modelmq.process.main import READY_VARIABLE, settings_of
from modelmq.supervisor import processes


@pytest.fixture(autouse=True)
def _own_collector() -> Iterator[None]:
    """A service sets the collector of its process, which here is the tests'."""
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


def test_a_service_is_seldom_stopped_to_look_for_garbage() -> None:
    seen: list[int] = []

    async def body(own: Process) -> None:
        seen.extend((gc.get_threshold()[0], gc.get_freeze_count()))

    assert process.main("gateway", body, {}) == 0
    assert seen[0] >= 10_000
    assert seen[1] > 10_000


def test_supervisor_and_service_agree_about_the_word_ready() -> None:
    assert READY_VARIABLE == processes.READY_VARIABLE


def test_a_service_runs_until_it_is_told_to_end(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    reading, writing = os.pipe()
    monkeypatch.setenv(READY_VARIABLE, str(writing))

    async def body(own: Process) -> None:
        assert own.settings.gateway.port == 9000
        own.emit(ServiceStarted("gateway", "here"))
        own.ready()
        own.ready()
        os.kill(os.getpid(), signal.SIGTERM)
        await own.stop.wait()

    assert process.main("gateway", body, {"MODELMQ_GATEWAY_PORT": "9000"}) == 0
    with os.fdopen(reading, "rb") as pipe:
        assert pipe.read() == b"ready\n"
    assert '"event":"ServiceStarted","address":"here"' in capfd.readouterr().err


def test_who_does_not_wait_for_the_word_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    monkeypatch.setenv(READY_VARIABLE, str(writing))

    async def body(own: Process) -> None:
        own.ready()

    assert process.main("gateway", body, {}) == 0


@pytest.mark.parametrize(("error", "status"), [(ConfigError("No."), 2), (NodeError("No."), 1)])
def test_an_error_is_one_sentence_and_a_status(
    error: Exception, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    async def body(own: Process) -> None:
        raise error

    assert process.main("worker", body, {}) == status
    assert capsys.readouterr().err == "modelmq.worker: No.\n"


def test_settings_come_from_the_environment_and_the_file_it_names(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text("[gateway]\nport = 1\nhost = '127.0.0.2'\n")
    settings = settings_of({"MODELMQ_CONFIG": str(path), "MODELMQ_GATEWAY_PORT": "2"})
    assert (settings.gateway.port, settings.gateway.host) == (2, "127.0.0.2")
    with pytest.raises(ConfigError, match=r"missing\.toml"):
        settings_of({"MODELMQ_CONFIG": str(tmp_path / "missing.toml")})
    path.write_text("[gatway]\n")
    with pytest.raises(ConfigError, match=r"own\.toml, line 1"):
        settings_of({"MODELMQ_CONFIG": str(path)})
