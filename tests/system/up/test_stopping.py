"""The way down: by Ctrl-C, by signal, by a closed terminal, by force, and from the middle of the way up."""

from __future__ import annotations

import signal
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest

from tests.system.up.running import SLOW, Starter, Up, write_model


def gathered(up: Up, requests: int, pool: ThreadPoolExecutor) -> list[Future[httpx.Response]]:
    """Requests that the gateway has taken, none of them answered yet."""
    asked = [pool.submit(up.ask, "slow") for _ in range(requests)]
    while True:
        text = httpx.get(f"{up.url}/metrics", trust_env=False).text
        (line,) = (line for line in text.splitlines() if line.startswith("modelmq_requests_in_flight "))
        if float(line.split()[1]) >= requests:
            assert not any(each.done() for each in asked)
            return asked


@pytest.mark.parametrize("how", ["interrupt", "terminate", "hang up"])
def test_requests_in_flight_are_answered_and_nothing_is_left(how: str, folder: Path, start: Starter) -> None:
    write_model(folder / "models", "slow", SLOW, "max_batch_size = 1\n")
    up = start("--models", "models", tty=how != "terminate").until_serving()
    listening = {
        c.laddr.port for p in up.left() for c in psutil.Process(p.pid).net_connections() if c.status == "LISTEN"
    }
    assert len(listening) >= 4
    with ThreadPoolExecutor(4) as pool:
        asked = gathered(up, 3, pool)
        match how:
            case "interrupt":
                up.interrupt()
            case "terminate":
                up.signal(signal.SIGTERM)
            case _:
                up.hang_up()
        assert [each.result().status_code for each in asked] == [200, 200, 200]
    assert up.ended() == 0
    assert up.left() == []
    assert not listening & {c.laddr.port for c in psutil.net_connections() if c.status == "LISTEN"}
    if how != "hang up":
        assert up.text.rstrip().endswith("stopped")
        assert "finishing open requests" in up.text
        assert "Traceback" not in up.text


def test_a_second_interrupt_does_not_wait_for_a_model(folder: Path, start: Starter) -> None:
    write_model(folder / "models", "slow", SLOW.replace("1.0", "1000.0"))
    up = start("--models", "models", "--set", "worker.load_timeout_s=1000", tty=True)
    up.until("topology")
    up.interrupt()
    up.until("stopping")
    up.interrupt()
    assert up.ended() == 0
    assert up.left() == []


@pytest.mark.parametrize("words", ["starting a private RabbitMQ", "✓ RabbitMQ", "✓ topology"])
def test_an_interrupt_on_the_way_up_leaves_nothing(words: str, own: Callable[..., Up]) -> None:
    up = own(tty=True)
    up.until(words)
    up.interrupt()
    assert up.ended() == 0
    assert up.left() == []
    assert "Traceback" not in up.text
