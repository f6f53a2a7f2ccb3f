"""Work that nobody waits for: withdrawn or out of time, wherever the request is, and its siblings are answered."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from modelmq import bundles
from modelmq.amqp import Properties, Settled, connect
from modelmq.bundles import BUNDLE, RequestPart
from modelmq.events import BatchFinished, MessageRefused, RequestFailed, WorkDropped

pytestmark = pytest.mark.broker

Make = Callable[..., None]
Declare = Callable[..., Awaitable[None]]
Start = Callable[..., Awaitable[Any]]

COUNTING = """
    import time
    from pathlib import Path

    class Model:
        inputs = {"x": ("FP64", [-1])}
        outputs = {"y": ("FP64", [-1])}
        def predict(self, batch):
            with open("FOLDER/computed", "a") as file:
                print(*map(int, batch["x"]), file=file)
            if batch["x"][0] == 100:
                Path("FOLDER/entered").touch()
                while not Path("FOLDER/open").exists():
                    time.sleep(0.005)
            if (batch["x"] == 13).any():
                Path("FOLDER/thirteen").touch()
                while not Path("FOLDER/on").exists():
                    time.sleep(0.005)
                raise ValueError("13 is unlucky")
            return {"y": batch["x"] * 2}
"""


LOOKING = """
    import time
    from pathlib import Path

    class Model:
        inputs = {"x": ("FP64", [-1])}
        outputs = {"y": ("FP64", [-1])}
        def predict(self, batch, cancelled):
            first = int(batch["x"][0])
            if first >= 100:
                Path(f"FOLDER/entered-{first}").touch()
                Path("FOLDER/entered").touch()
                while not Path("FOLDER/open").exists():
                    if cancelled():
                        Path(f"FOLDER/stopped-{first}").touch()
                        raise RuntimeError("nobody waits")
                    time.sleep(0.005)
            return {"y": batch["x"] * 2}
"""


class Bench:
    """A worker whose model is busy with one request, and counts what it computes."""

    def __init__(self, running: Any, asker: Any, folder: Path, blocker: str) -> None:
        self.running = running
        self.asker = asker
        self.folder = folder
        self.blocker = blocker

    async def send(self, *values: float, **properties: Any) -> str:
        name: str = await self.asker.send("m", request(*values), **properties)
        return name

    async def send_together(self, *values: float, deadline_ms: int = 2**60) -> list[str]:
        """As parts of one message."""
        names = [f"part-{value:g}" for value in values]
        parts = [
            RequestPart(name, deadline_ms, name, "application/json", None, request(value))
            for name, value in zip(names, values, strict=True)
        ]
        await self.asker.send("m", bundles.encode(parts), content_type=BUNDLE)
        return names

    async def cancel(self, *names: str, **properties: Any) -> None:
        """Withdraw, and wait until the worker has heard it: the answer to a later hello shows that."""
        for name in names:
            self.asker.cancel(name, **properties)
        await self.asker.hello()

    def go_on(self) -> None:
        (self.folder / "open").touch()

    async def answers(self, *names: str) -> list[Any]:
        """Let the model go on; the values, or the status, of these answers."""
        self.go_on()
        answers = [await self.asker.answer(name) for name in names]
        return [answer.status or answer.values[0] for answer in answers]

    async def computed(self) -> set[int]:
        """All that the model has computed, once the worker has ended; with the certainty that nothing is left."""
        await self.running.stop()
        assert await self.asker.messages("ml-model.m.interactive") == []
        words = (self.folder / "computed").read_text().split()
        assert len(words) == len(set(words)) or "13" in words
        return set(map(int, words)) - {100, 0}

    def dropped(self) -> dict[str, int]:
        counts: dict[str, int] = {}
        for event in self.running.of(WorkDropped):
            assert (event.model, event.version) == ("m", "1")
            counts[event.reason] = counts.get(event.reason, 0) + event.requests
        return counts


@pytest.fixture
def bench(
    make_model: Make, declare: Declare, start_worker: Start, asker: Any, tmp_path: Path, wait_for_file: Any
) -> Callable[..., Awaitable[Bench]]:
    async def make(toml: str = "", *, code: str = COUNTING, **worker: Any) -> Bench:
        make_model("m", code.replace("FOLDER", str(tmp_path)), toml=toml)
        await declare()
        running = await start_worker(**worker)
        blocker = await asker.send("m", request(100))
        await wait_for_file(tmp_path / "entered")
        return Bench(running, asker, tmp_path, blocker)

    return make


@pytest.mark.both_reply_modes
@pytest.mark.both_brokers
async def test_wherever_a_request_waits_it_is_withdrawn_alone(bench: Any) -> None:
    """With two messages held, the third and all after it are with the broker when the cancel comes."""
    at = await bench("max_batch_size = 1")
    held, first, second, last = [await at.send(value) for value in (1, 2, 3, 4)]
    await at.cancel(held, second)
    assert await at.answers(first, last) == [4, 8]
    assert await at.computed() == {2, 4}
    assert {held, second}.isdisjoint(at.asker.replies)
    assert at.dropped() == {"cancelled": 2}
    (refused,) = at.running.of(MessageRefused)
    assert (refused.request_id, refused.code) == (second, "cancelled")


async def test_of_a_batch_one_is_withdrawn(bench: Any) -> None:
    at = await bench()
    names = [await at.send(value) for value in (1, 2, 3)]
    await at.cancel(names[1])
    assert await at.answers(names[0], names[2]) == [2, 6]
    assert await at.computed() == {1, 3}
    assert [batch.rows for batch in at.running.of(BatchFinished)] == [1, 2]
    (failed,) = at.running.of(RequestFailed)
    assert (failed.request_id, failed.code) == (names[1], "cancelled")


@pytest.mark.both_reply_modes
async def test_of_a_bundle_one_is_withdrawn(bench: Any) -> None:
    """One bundle is held, the other still with the broker."""
    at = await bench("max_batch_size = 1")
    held, waiting = await at.send_together(1, 2, 3), await at.send_together(4, 5, 6)
    await at.cancel(held[1], waiting[0])
    assert await at.answers(held[0], held[2], *waiting[1:]) == [2, 6, 10, 12]
    assert await at.computed() == {1, 3, 5, 6}
    assert {held[1], waiting[0]}.isdisjoint(at.asker.replies)
    assert at.dropped() == {"cancelled": 2}


@pytest.mark.both_reply_modes
async def test_only_who_knows_address_and_id_withdraws(bench: Any, reply_mode: str) -> None:
    """Somebody else with the same id has an address of its own; a made-up one, or none, is nobody's."""
    at = await bench("max_batch_size = 1")
    held, waiting = await at.send(1), await at.send(2)
    stranger = await at.asker.connection.channel()
    if reply_mode == "direct":
        await stranger.consume("amq.rabbitmq.reply-to", lambda _: None, no_ack=True)
    for address in ("amq.rabbitmq.reply-to" if reply_mode == "direct" else "amq.gen-other", "amq.gen-x", "ml-x", None):
        for name in (held, waiting):
            own, at.asker.channel = at.asker.channel, stranger
            at.asker.cancel(name, reply_to=address)
            at.asker.channel = own
    await at.cancel("another", "", reply_to=at.asker.address)
    await stranger.close()
    await at.cancel("another")
    assert await at.answers(held, waiting) == [2, 4]
    assert await at.computed() == {1, 2}
    assert at.dropped() == {}


async def test_a_flood_of_cancels_is_borne_and_costs_no_answer(bench: Any) -> None:
    at = await bench()
    names = [await at.send(value) for value in range(1, 5)]
    for number in range(20_000):
        at.asker.cancel(f"nobody-{number}")
    await at.cancel(names[0])
    assert len(at.running.worker._tombstones) == 10_000
    assert await at.answers(*names[1:]) == [4, 6, 8]
    assert await at.computed() == {2, 3, 4}


async def test_what_is_running_is_finished_and_its_answer_dropped(bench: Any) -> None:
    at = await bench()
    other = await at.send(1)
    await at.cancel(at.blocker)
    at.go_on()
    assert (await at.asker.answer(other)).values == [2]
    await at.computed()
    assert at.blocker not in at.asker.replies
    assert [batch.outcomes for batch in at.running.of(BatchFinished)] == [{"cancelled": 1}, {"succeeded": 1}]
    assert at.dropped() == {}  # it was computed


@pytest.mark.both_reply_modes
async def test_a_model_that_looks_stops_and_no_sibling_is_harmed(bench: Any, wait_for_file: Any) -> None:
    at = await bench(code=LOOKING)
    names = [await at.send(200), await at.send(1)]
    await at.cancel(at.blocker)
    await wait_for_file(at.folder / "stopped-100")
    await wait_for_file(at.folder / "entered-200")
    await at.cancel(names[0])
    assert await at.asker.hello()  # a word to the model would have gone out by now
    assert not (at.folder / "stopped-200").exists()
    at.go_on()
    assert (await at.asker.answer(names[1])).values == [2]
    await at.running.stop()
    assert set(at.asker.replies).isdisjoint({at.blocker, names[0]})
    assert [batch.outcomes for batch in at.running.of(BatchFinished)] == [
        {"cancelled": 1},
        {"cancelled": 1, "succeeded": 1},
    ]
    assert at.dropped() == {"cancelled": 1}  # the other was computed
    assert await at.asker.messages("ml-model.m.interactive") == []


async def test_a_model_that_looks_stops_when_the_last_deadline_has_passed(bench: Any, wait_for_file: Any) -> None:
    at = await bench(code=LOOKING)
    now_ms = int(time.time() * 1000)
    names = [await at.send(200, headers={"deadline": now_ms + left}) for left in (300, 60_000, 600)]
    await at.cancel(at.blocker)
    await wait_for_file(at.folder / "entered-200")
    await at.cancel(names[1])
    assert [(await at.asker.answer(names[which])).status for which in (0, 2)] == ["expired", "expired"]
    assert (at.folder / "stopped-200").exists()
    assert time.time() * 1000 >= now_ms + 600
    await at.running.until(lambda: len(at.running.of(BatchFinished)) == 2)
    assert at.running.of(BatchFinished)[1].outcomes == {"cancelled": 1, "expired": 2}
    assert await at.answers(await at.send(1)) == [2]


async def test_a_batch_that_raised_is_run_again_without_those_withdrawn_meanwhile(
    bench: Any, wait_for_file: Any
) -> None:
    at = await bench()
    names = [await at.send(value) for value in (13, 2, 3, 4)]
    at.go_on()
    await wait_for_file(at.folder / "thirteen")
    await at.cancel(names[0], names[3])
    (at.folder / "on").touch()
    assert await at.answers(*names[1:3]) == [4, 6]
    await at.running.until(lambda: len(at.running.of(BatchFinished)) == 2)
    assert at.running.of(BatchFinished)[1].outcomes == {"cancelled": 2, "succeeded": 2}


@pytest.mark.both_brokers
@pytest.mark.parametrize("reply_mode", ["queue"], indirect=True)
async def test_what_a_gateway_asked_that_is_gone_is_not_computed(bench: Any, vhost: Any) -> None:
    """Its first reply comes back, while the next request may be in the model; then nothing is computed for it."""
    at = await bench("max_batch_size = 1")
    connection = await connect(vhost.options(name="a gateway"))
    channel = await connection.channel()
    address = await channel.declare_queue("ml-gateway.gone.1", exclusive=True, auto_delete=True)
    await channel.bind_queue(address, "ml-reply-exchange", address)
    for value in range(1, 9):
        await at.send(value, reply_to=address)
    stays = await at.send(9)
    await connection.close()
    assert await at.answers(stays) == [18]
    computed = await at.computed() - {9}
    assert {1} <= computed <= {1, 2, 3}
    assert at.dropped() == {"cancelled": 8 - len(computed)}


@pytest.mark.parametrize("reply_mode", ["queue"], indirect=True)
async def test_a_client_that_binds_its_queue_too_late_loses_one_reply(bench: Any) -> None:
    """That nobody is there now says nothing of a queue whose owner binds it."""
    at = await bench("max_batch_size = 1")
    queue = await at.asker.channel.declare_queue(exclusive=True)
    for value in (1, 2):
        await at.send(value, reply_to=queue)
    at.go_on()
    await at.running.until(lambda: len(at.running.of(BatchFinished)) == 3)
    await at.asker.channel.bind_queue(queue, "ml-reply-exchange", queue)
    await at.asker.channel.consume(queue, at.asker._on_reply, no_ack=True)
    assert (await at.asker.answer(await at.send(3, reply_to=queue))).values == [6]


async def test_a_cancel_tells_until_when_it_is_to_be_remembered(bench: Any) -> None:
    at = await bench()
    now_ms = int(time.time() * 1000)
    await at.cancel("late", headers={"deadline": now_ms - 1})
    await at.cancel("odd", headers={"deadline": "soon"})
    assert len(at.running.worker._tombstones) == 0
    await at.cancel("early", headers={"deadline": now_ms + 60_000})
    assert len(at.running.worker._tombstones) == 1
    assert await at.answers() == []


async def test_one_way_requests_cannot_be_withdrawn(bench: Any) -> None:
    at = await bench("max_batch_size = 1")
    settled: list[Settled] = []
    for value in (1, 2):
        at.asker.publish("m", request(value), reply_to=None, correlation_id="c", on_settled=settled.append)
    last = await at.send(3)
    await at.cancel("c")
    await at.cancel("c", reply_to=None)
    assert await at.answers(last) == [6]
    assert await at.computed() == {1, 2, 3}


async def test_without_a_deadline_the_expiration_or_the_models_time_counts_from_receipt(bench: Any) -> None:
    at = await bench("timeout_s = 0.3")
    far_ms = int(time.time() * 1000) + 60_000
    names = [await at.send(1), await at.send(2, expiration="200"), await at.send(3, headers={"deadline": far_ms})]
    received_s = time.monotonic()
    while time.monotonic() < received_s + 0.35:  # noqa: ASYNC110 - the clock gives no signal
        await asyncio.sleep(0.01)
    assert await at.answers(*names) == ["expired", "expired", 6]
    assert await at.computed() == {3}
    assert at.dropped() == {"expired": 2}


@pytest.mark.both_brokers
async def test_delivered_again_a_request_has_no_more_time_with_the_broker_than_it_had(
    make_model: Make, declare: Declare, asker: Any
) -> None:
    """Another message, queued later with the same expiration, shows when that is over."""
    make_model("m")
    await declare()
    channel = await asker.connection.channel()
    arguments = {"x-queue-type": "quorum", "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "bell"}
    await channel.declare_queue("clock", durable=True, arguments=arguments)
    await channel.declare_queue("bell", exclusive=True)
    rung, held = asyncio.Event(), asyncio.Event()
    await channel.consume("bell", lambda _: rung.set(), no_ack=True)
    holder = await asker.connection.channel()
    await holder.consume("ml-model.m.interactive", lambda _: held.set())
    await asker.send("m", request(1), expiration="400")
    await asyncio.wait_for(held.wait(), 30)
    channel.publish("", "clock", Properties(expiration="400"), b"")
    await asyncio.wait_for(rung.wait(), 30)
    await holder.close()
    assert await asker.messages("ml-model.m.interactive") == []


def request(*values: float) -> bytes:
    data = ",".join(f"{value:g}" for value in values)
    tensor = f'{{"name":"x","datatype":"FP64","shape":[{len(values)}],"data":[{data}]}}'
    return f'{{"inputs":[{tensor}]}}'.encode()
