"""What a worker does when models, queues and connections fail: nothing is lost, nobody innocent pays."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from modelmq.errors import ConfigError
from modelmq.events import BatchFinished, ModelLoaded, ModelLoadFailed, ModelProcessEnded, QueueMissing
from modelmq.worker import restarts

pytestmark = pytest.mark.broker

Make = Callable[..., None]
Declare = Callable[..., Awaitable[None]]
Start = Callable[..., Awaitable[Any]]

FRAGILE = """
    import os, time
    from pathlib import Path

    class Model:
        inputs = {"x": ("FP64", [-1])}
        outputs = {"y": ("FP64", [-1])}
        def predict(self, batch):
            x = batch["x"]
            if x[0] == 100:
                Path("FOLDER/entered").touch()
                while not Path("FOLDER/open").exists():
                    time.sleep(0.005)
            if (x == 13).any():
                os._exit(9)
            if (x == 14).any():
                time.sleep(3600)
            return {"y": x * 2}
"""


@pytest.mark.both_reply_modes
@pytest.mark.both_brokers
async def test_a_request_that_kills_the_model_is_dead_lettered_and_its_neighbours_are_answered(
    make_model: Make, declare: Declare, start_worker: Start, asker: Any, tmp_path: Path, wait_for_file: Any,
    request_body: Any,
) -> None:  # fmt: skip
    make_model("fragile", FRAGILE.replace("FOLDER", str(tmp_path)))
    await declare()
    running = await start_worker(max_attempts=2)
    blocker = await asker.send("fragile", request_body(100))
    await wait_for_file(tmp_path / "entered")
    names = {value: await asker.send("fragile", request_body(value), headers={"mine": value}) for value in range(10, 16)
             if value != 14}  # fmt: skip
    (tmp_path / "open").touch()
    for value, name in {100: blocker, **names}.items():
        answer = await asker.answer(name)
        if value == 13:
            assert answer.status == "dead"
            assert "exited with status 9 each of the 2 times" in answer.body["error"]
        else:
            assert answer.values == [value * 2]
    await running.until(lambda: len(running.of(BatchFinished)) == 2)
    assert running.of(BatchFinished)[-1].outcomes == {"succeeded": 4, "dead": 1}
    assert running.of(ModelProcessEnded)[-1].requests_held == 1
    (letter,) = await asker.messages("ml-dead-letter.fragile")
    headers = letter.properties.headers
    assert (headers["reason"], headers["attempts"], headers["mine"]) == ("model_process_died", 2, 13)
    assert "exited with status 9" in headers["error"]
    assert (letter.body, letter.properties.correlation_id) == (request_body(13), names[13])
    await running.stop()
    assert await asker.messages("ml-model.fragile.interactive") == []


async def test_a_hung_model_is_ended_and_the_caller_told(
    make_model: Make, declare: Declare, start_worker: Start, asker: Any, tmp_path: Path
) -> None:
    make_model("fragile", FRAGILE.replace("FOLDER", str(tmp_path)), toml="max_run_s = 0.3")
    await declare()
    await start_worker(max_attempts=1)
    answer = await asker.ask("fragile", 14)
    assert answer.status == "dead"
    assert "max_run_s" in answer.body["error"]
    assert (await asker.ask("fragile", 1)).values == [2]


async def test_a_killed_process_comes_back(make_model: Make, declare: Declare, start_worker: Start, asker: Any) -> None:
    make_model("double")
    await declare()
    running = await start_worker()
    pid = running.worker.queues[0].versions["1"].pid
    os.kill(pid, signal.SIGKILL)
    await running.until(lambda: len(running.of(ModelLoaded)) == 2)
    assert (await asker.ask("double", 1)).values == [2]
    assert running.of(ModelProcessEnded)[0].requests_held == 0


async def test_a_crash_loop_leaves_the_queue_to_others(
    make_model: Make, declare: Declare, start_worker: Start, asker: Any, tmp_path: Path, request_body: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(restarts, "most_deaths", lambda *_: 2)
    monkeypatch.setattr(restarts, "RETRY_DELAYS_S", (3600.0, 3600.0))
    make_model("fragile", FRAGILE.replace("FOLDER", str(tmp_path)))
    make_model("other")
    await declare()
    running = await start_worker(max_attempts=5)
    name = await asker.send("fragile", request_body(13))
    await running.until(lambda: running.worker.queues[0].versions["1"].state == "failed")
    report = {model.name: model for model in (await asker.hello()).models}
    assert report["fragile"].state == "failed"
    assert "again and again" in report["fragile"].reason
    assert (await asker.ask("other", 2)).values == [4]
    assert running.worker.status() == (True, "fragile failed")
    await running.stop()
    (waiting,) = await asker.messages("ml-model.fragile.interactive")
    assert waiting.properties.correlation_id == name
    assert name not in asker.replies


async def test_a_model_that_does_not_load_leaves_the_others_serving(
    make_model: Make, declare: Declare, start_worker: Start, asker: Any, models_dir: Path, request_body: Any
) -> None:
    make_model("broken", "raise RuntimeError('no weights here')")
    make_model("mixed", version="1")
    make_model("mixed", "raise RuntimeError('bad release')", version="2")
    await declare()
    running = await start_worker()
    errors = {(failed.model, failed.version): failed.error for failed in running.of(ModelLoadFailed)}
    assert errors.keys() == {("broken", "1"), ("mixed", "2")}
    assert str(models_dir / "broken" / "1" / "model.py") in errors["broken", "1"]
    assert "no weights here" in errors["broken", "1"]
    name = await asker.send("broken", request_body(1))
    assert (await asker.ask("mixed", 1)).body["model_version"] == "1"
    newest = await asker.ask("mixed.2", 1)
    assert newest.status == "unavailable"
    assert "bad release" in newest.body["error"]
    states = {(model.name, model.version): model.state for model in (await asker.hello()).models}
    assert states == {("broken", "1"): "failed", ("mixed", "1"): "ready", ("mixed", "2"): "failed"}
    await running.stop()
    (waiting,) = await asker.messages("ml-model.broken.interactive")
    assert (waiting.properties.correlation_id, waiting.redelivered) == (name, False)


async def test_no_model_at_all_is_a_clear_error(start_worker: Start) -> None:
    with pytest.raises(ConfigError, match="has no model that a worker of role"):
        await start_worker()


async def test_an_absent_queue_is_named_and_found_later(
    make_model: Make, declare: Declare, start_worker: Start, asker: Any
) -> None:
    make_model("late")
    make_model("early")
    queue = "ml-model.late.interactive"
    await declare(without=[queue])
    running = await start_worker()
    await running.until(lambda: running.of(QueueMissing))
    missing = running.of(QueueMissing)[0]
    assert missing.queue == queue
    assert "run modelmq topology apply" in missing.advice
    assert running.worker.status() == (True, f"queue {queue} is missing")
    assert (await asker.ask("early", 1)).values == [2]
    assert (await asker.ask("late.bulk", 1)).values == [2]
    await declare()
    assert (await asker.ask("late", 1)).values == [2]


@pytest.mark.both_brokers
async def test_a_deleted_queue_is_missed_and_taken_up_again(
    make_model: Make, declare: Declare, start_worker: Start, asker: Any
) -> None:
    make_model("double")
    await declare()
    running = await start_worker()
    assert (await asker.ask("double", 1)).values == [2]
    channel = await asker.connection.channel()
    await channel.delete_queue("ml-model.double.interactive")
    await running.until(lambda: running.of(QueueMissing))
    assert (await asker.ask("double.bulk", 1)).values == [2]
    await declare()
    assert (await asker.ask("double", 1)).values == [2]


async def test_without_a_topology_the_worker_waits_for_it(
    make_model: Make, declare: Declare, start_worker: Start, asker: Any
) -> None:
    make_model("double")
    running = await start_worker()
    await running.until(
        lambda: (
            {each.queue for each in running.of(QueueMissing)}
            == {"ml-model.double.interactive", "ml-model.double.bulk", "ml-control-exchange"}
        )
    )
    assert running.worker.status()[0] is False
    await declare()
    assert (await asker.ask("double", 1)).values == [2]
    assert (await asker.hello()).role == "default"


@pytest.mark.both_reply_modes
@pytest.mark.both_brokers
async def test_after_a_lost_connection_everything_is_answered(
    make_model: Make, declare: Declare, start_worker: Start, asker: Any, tmp_path: Path, wait_for_file: Any,
    request_body: Any,
) -> None:  # fmt: skip
    make_model("fragile", FRAGILE.replace("FOLDER", str(tmp_path)))
    await declare()
    running = await start_worker()
    names = {100: await asker.send("fragile", request_body(100))}
    await wait_for_file(tmp_path / "entered")
    names |= {value: await asker.send("fragile", request_body(value)) for value in range(5)}
    running.worker.connection.abort()
    (tmp_path / "open").touch()
    for value, name in names.items():
        assert (await asker.answer(name)).values == [value * 2]
    await running.stop()
    assert await asker.messages("ml-model.fragile.interactive") == []


async def test_a_stop_finishes_what_is_held_and_says_so(
    make_model: Make, declare: Declare, start_worker: Start, asker: Any, tmp_path: Path, wait_for_file: Any,
    request_body: Any,
) -> None:  # fmt: skip
    make_model(
        "fragile", FRAGILE.replace("FOLDER", str(tmp_path)), toml="max_batch_size = 2\nmax_queue_delay_ms = 50000"
    )
    await declare()
    running = await start_worker()
    await asker.hello()
    first = [await asker.send("fragile", request_body(100, 1)), await asker.send("fragile", request_body(1))]
    await wait_for_file(tmp_path / "entered")
    async with asyncio.timeout(30):
        # Taking in a request is no event, and the batcher gives no other sign.
        while running.worker.queues[0].versions["1"].report(0, 1, draining=False).pending < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    running.stopping.set()
    await asker.until(lambda: any(b'"draining"' in report.body for report in asker.replies.get("", [])))
    (tmp_path / "open").touch()
    assert (await asker.answer(first[0])).values == [200, 2]
    assert (await asker.answer(first[1])).values == [2]
    later = await asker.send("fragile", request_body(2))
    await running.stop()
    (left,) = await asker.messages("ml-model.fragile.interactive")
    assert (left.properties.correlation_id, left.redelivered) == (later, False)


async def test_what_is_not_finished_in_time_goes_back(
    make_model: Make, declare: Declare, start_worker: Start, asker: Any, tmp_path: Path, wait_for_file: Any,
    request_body: Any,
) -> None:  # fmt: skip
    make_model("fragile", FRAGILE.replace("FOLDER", str(tmp_path)))
    await declare()
    running = await start_worker(drain_s=0.2)
    names = [await asker.send("fragile", request_body(100))]
    await wait_for_file(tmp_path / "entered")
    names.append(await asker.send("fragile", request_body(1)))
    await running.stop()
    left = await asker.messages("ml-model.fragile.interactive")
    assert sorted(each.properties.correlation_id for each in left) == sorted(names)
    assert asker.replies == {}
