"""A worker whose login changes: what it holds is finished where it came, and all or nothing moves."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from modelmq.amqp import Credentials, link
from modelmq.events import BrokerDisconnected, BrokerDrained, BrokerHandedOver, BrokerHandOverFailed

pytestmark = pytest.mark.broker

SLOW = """
    import time
    from pathlib import Path

    class Model:
        inputs = {"x": ("FP64", [-1])}
        outputs = {"y": ("FP64", [-1])}
        def predict(self, batch):
            with Path("FOLDER/runs").open("a") as file:
                file.write("x" * len(batch["x"]))
            if batch["x"][0] == 100:
                Path("FOLDER/entered").touch()
                while not Path("FOLDER/open").exists():
                    time.sleep(0.005)
            return {"y": batch["x"] * 2}
"""


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "LOOK_EVERY_S", 0.02)
    monkeypatch.setattr("modelmq.amqp.renewal.FIRST_DELAY_S", 0.05)


@pytest.fixture
async def worker(make_model: Any, declare: Any, start_worker: Any, tmp_path: Path, vhost: Any, _admin: Any) -> Any:
    """One with a slow model, and a second user for it."""
    make_model("m", SLOW.replace("FOLDER", str(tmp_path)), toml="max_batch_size = 1")
    await declare()
    running = await start_worker()
    running.second = Credentials(f"{vhost.name}~2", "another")
    _admin.call("PUT", f"users/{running.second.username}", {"password": "another", "tags": ""})

    def allow(read: str) -> None:
        rights = {"configure": ".*", "write": ".*", "read": read}
        _admin.call("PUT", f"permissions/{vhost.name}/{running.second.username}", rights)

    def change() -> None:
        # As if the secret's file had changed; its reading is tested elsewhere.
        msgspec.structs.force_setattr(running.worker._options, "credentials", lambda: running.second)

    running.allow, running.change = allow, change
    yield running
    _admin.call("DELETE", f"users/{running.second.username}")


async def test_what_is_held_is_finished_over_the_old_connection(
    worker: Any, asker: Any, request_body: Any, tmp_path: Path, wait_for_file: Callable[[Path], Awaitable[None]]
) -> None:
    worker.allow(".*")
    (tmp_path / "runs").unlink()  # what warming up left
    slow = await asker.send("m", request_body(100))
    await wait_for_file(tmp_path / "entered")
    worker.change()
    await worker.until(lambda: worker.of(BrokerHandedOver))
    behind = await asker.send("m", request_body(1))
    assert worker.of(BrokerDrained) == []
    (tmp_path / "open").touch()
    assert (await asker.answer(slow)).values == [200]
    assert (await asker.answer(behind)).values == [2]
    await worker.until(lambda: worker.of(BrokerDrained))
    assert (tmp_path / "runs").read_text() == "xx"
    assert {name: len(replies) for name, replies in asker.replies.items() if name} == {slow: 1, behind: 1}
    assert worker.of(BrokerDisconnected) == []


async def test_a_user_that_may_not_consume_changes_nothing_until_it_may(
    worker: Any, asker: Any, request_body: Any
) -> None:
    worker.allow("^ml-control-exchange$|^ml-worker")
    old = worker.worker.connection
    worker.change()
    await worker.until(lambda: len(worker.of(BrokerHandOverFailed)) == 2)
    assert "access to queue 'ml-model.m." in worker.of(BrokerHandOverFailed)[0].reason
    assert worker.worker.connection is old
    answers = await asyncio.gather(*(asker.ask("m", value) for value in range(10)))
    assert [answer.values for answer in answers] == [[value * 2] for value in range(10)]
    worker.allow(".*")
    await worker.until(lambda: worker.of(BrokerDrained))
    assert worker.worker.connection is not old
    assert (await asker.ask("m", 3)).values == [6]
    assert worker.worker.status() == (True, "serving 1 models")
