"""A worker on a real broker: requests in, answers out, whatever the messages look like."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from modelmq.amqp import Properties, Settled
from modelmq.events import BatchFinished, BrokerDisconnected, MessageRefused, ModelLoadFailed, RequestFailed

pytestmark = pytest.mark.broker

Make = Callable[..., None]
Declare = Callable[..., Awaitable[None]]
Start = Callable[..., Awaitable[Any]]

GATED = """
    import time
    from pathlib import Path

    class Model:
        inputs = {"x": ("FP64", [-1])}
        outputs = {"y": ("FP64", [-1])}
        def predict(self, batch):
            if batch["x"][0] == 100:
                Path("FOLDER/entered").touch()
                while not Path("FOLDER/open").exists():
                    time.sleep(0.005)
            if (batch["x"] == 13).any():
                raise ValueError("13 is unlucky")
            return {"y": batch["x"] * 2}
"""


@pytest.mark.both_reply_modes
@pytest.mark.both_brokers
async def test_a_request_is_answered(make_model: Make, declare: Declare, start_worker: Start, asker: Any) -> None:
    make_model("double")
    await declare()
    running = await start_worker()
    answer = await asker.ask("double", 1, 2.5)
    assert answer.status == ""
    assert (answer.body["model_name"], answer.body["model_version"]) == ("double", "1")
    assert answer.values == [2, 5]
    assert (await asker.ask("double.1", 3)).values == [6]
    assert (await asker.ask("double.bulk", 4)).values == [8]
    named = await asker.answer(await asker.send("double", b'{"id": "abc", "inputs": [], "outputs": []}'))
    assert named.status == "invalid"
    assert running.worker.status() == (True, "serving 1 models")


async def test_versions_share_the_queues_and_the_key_chooses(
    make_model: Make, declare: Declare, start_worker: Start, asker: Any
) -> None:
    for version in ("2", "10"):
        make_model("m", version=version)
    await declare()
    await start_worker()
    assert (await asker.ask("m", 1)).body["model_version"] == "10"
    assert (await asker.ask("m.2", 1)).body["model_version"] == "2"
    answer = await ask_at(asker, "ml-model.m.interactive", "m.7", request(1))
    assert answer.status == "not_found"
    assert 'no version "7"; it has 2, 10' in answer.body["error"]


async def test_the_names_of_the_single_service_program(
    make_model: Make, declare: Declare, start_worker: Start, asker: Any
) -> None:
    make_model("m", toml='routing_key = "ml_service"\nqueue = "ml-service-queue"\n')
    await declare()
    await start_worker()
    assert (await asker.ask("ml_service", 1)).values == [2]
    assert (await asker.ask("m.1.bulk", 1)).values == [2]
    # The default exchange routes by queue name, which is no key of ours: the queue alone tells the model.
    assert (await ask_at(asker, "ml-service-queue", "ml-service-queue", request(2), exchange="")).values == [4]


async def test_a_lane_holds_two_batches(
    make_model: Make, declare: Declare, start_worker: Start, asker: Any, tmp_path: Path, wait_for_file: Any
) -> None:
    make_model("gated", GATED.replace("FOLDER", str(tmp_path)), toml="max_batch_size = 3")
    await declare()
    running = await start_worker()
    names = [await asker.send("gated", request(100))]
    await wait_for_file(tmp_path / "entered")
    names += [await asker.send("gated", request(value)) for value in range(10)]
    channel = await asker.connection.channel()
    assert await channel.purge_queue("ml-model.gated.interactive") == 11 - 2 * 3
    (tmp_path / "open").touch()
    assert [(await asker.answer(name)).values for name in names[:6]] == [[200], [0], [2], [4], [6], [8]]
    await running.stop()
    assert [batch.rows for batch in running.of(BatchFinished)] == [1, 3, 2]


async def test_an_output_of_other_rows_than_were_sent_is_never_cut(
    make_model: Make, declare: Declare, start_worker: Start, asker: Any, tmp_path: Path, wait_for_file: Any
) -> None:
    """Of a batch the model gives one row too few; what is left of it, alone, is right or fails by itself."""
    code = GATED.replace("FOLDER", str(tmp_path)).replace('{"y": batch["x"] * 2}', '{"y": batch["x"][:2] * 2}')
    make_model("gated", code)
    await declare()
    running = await start_worker()
    blocker = await asker.send("gated", request(100))
    await wait_for_file(tmp_path / "entered")
    names = [await asker.send("gated", request(value)) for value in range(4)]
    wide = await asker.send("gated", request(5, 6, 7))
    (tmp_path / "open").touch()
    assert (await asker.answer(blocker)).values == [200]
    assert [(await asker.answer(name)).values for name in names] == [[0], [2], [4], [6]]
    answer = await asker.answer(wide)
    assert answer.status == "failed"
    assert 'Output "y"' in answer.body["error"]
    assert "3 rows sent" in answer.body["error"]
    await running.until(lambda: len(running.of(BatchFinished)) == 2)
    assert running.of(BatchFinished)[-1].outcomes == {"succeeded": 4, "failed": 1}


async def test_the_next_batch_is_in_the_model_before_the_answers_of_the_last_are_written(
    make_model: Make, declare: Declare, start_worker: Start, asker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_model("double", toml="max_batch_size = 1")
    await declare()
    running = await start_worker()
    steps: list[str] = []
    computing = running.worker.queues[0].versions["1"]._computing
    run, finish = computing._run, computing._finish
    monkeypatch.setattr(computing, "_run", lambda items: [steps.append("run"), run(items)][1])
    monkeypatch.setattr(computing, "_finish", lambda *result: [steps.append("answer"), finish(*result)][1])
    names = [asker.publish("double", request(value)) for value in range(20)]
    assert [(await asker.answer(name)).values for name in names] == [[value * 2] for value in range(20)]
    assert "run run answer" in " ".join(steps)
    assert steps.count("answer") == 20


async def test_63_of_64_succeed(
    make_model: Make, declare: Declare, start_worker: Start, asker: Any, tmp_path: Path, wait_for_file: Any
) -> None:
    make_model("gated", GATED.replace("FOLDER", str(tmp_path)), toml="max_batch_size = 64")
    await declare()
    running = await start_worker()
    blocker = await asker.send("gated", request(100))
    await wait_for_file(tmp_path / "entered")
    names = [await asker.send("gated", request(value)) for value in range(64)]
    (tmp_path / "open").touch()
    assert (await asker.answer(blocker)).values == [200]
    for value, name in enumerate(names):
        answer = await asker.answer(name)
        if value == 13:
            assert answer.status == "failed"
            assert "ValueError: 13 is unlucky" in answer.body["error"]
        else:
            assert answer.values == [value * 2]
    await running.until(lambda: len(running.of(BatchFinished)) >= 2)
    batch = running.of(BatchFinished)[-1]
    assert (batch.requests, batch.outcomes) == (64, {"succeeded": 63, "failed": 1})
    assert batch.runs <= 14
    (failed,) = running.of(RequestFailed)
    assert (failed.code, failed.request_id) == ("failed", names[13])


async def test_bad_messages_get_a_clear_error_and_nothing_is_left(
    make_model: Make, declare: Declare, start_worker: Start, asker: Any
) -> None:
    make_model("double", toml="max_batch_size = 4")
    await declare()
    running = await start_worker(max_body_bytes=100_000, max_reply_bytes=400)
    good = request(1)
    cases: list[tuple[str, str, bytes, dict[str, Any]]] = [
        ("", "", good, {"content_type": None}),
        ("", "", good, {"headers": {"deadline": 2**62}}),
        ("", "", good, {"headers": {"deadline": 1e300}}),
        ("", "", good, {"headers": {"x": {"y": [1, None, b"\xff"]}, "deep": {"a": {"b": {"c": 1}}}}}),
        ("", "", good, {"expiration": "60000", "message_id": "x" * 255, "type": "hello", "app_id": "?"}),
        ("invalid", "milliseconds", good, {"headers": {"deadline": "soon"}}),
        ("invalid", "milliseconds", good, {"headers": {"deadline": -1}}),
        ("invalid", "milliseconds", good, {"headers": {"deadline": True}}),
        ("expired", "deadline", good, {"headers": {"deadline": 1}}),
        ("expired", "deadline", good, {"headers": {"deadline": int(time.time() * 1000) - 1}}),
        ("unsupported", "text/plain", good, {"content_type": "text/plain"}),
        ("unsupported", "", good, {"content_type": "application/octet-stream"}),
        ("invalid", "", b"", {}),
        ("invalid", "", b"\x00\xff garbage", {}),
        ("invalid", "", b"[" * 50_000, {}),
        ("invalid", "", b'{"inputs": 1}', {}),
        ("invalid", "FP64", good.replace(b"FP64", b"FP32"), {}),
        ("invalid", "", good.replace(b"FP64", b"NOPE"), {}),
        ("invalid", "shape", good.replace(b'"shape":[1]', b'"shape":[1,1]'), {}),
        ("invalid", "", good.replace(b'"shape":[1]', b'"shape":[-1]'), {}),
        ("invalid", "", good.replace(b'"shape":[1]', b'"shape":[99999999999999999999]'), {}),
        ("invalid", "", good.replace(b'"data":[1]', b'"data":[NaN]'), {}),
        ("invalid", "", good.replace(b'"data":[1]', b'"data":["1"]'), {}),
        ("invalid", "unknown", good.replace(b'"x"', b'"z"'), {}),
        ("invalid", "at most 4", request(1, 2, 3, 4, 5), {}),
        ("too_large", "limit is 100000", good + b" " * 100_000, {}),
        ("failed", "limit is 400", good.replace(b"{", b'{"id": "' + b"i" * 500 + b'",', 1), {}),
    ]
    for status, sentence, body, properties in cases:
        answer = await asker.answer(await asker.send("double", body, **properties))
        assert answer.status == status, (body[:80], properties, answer)
        assert sentence in answer.body.get("error", ""), (body[:80], properties, answer)
    assert (await asker.ask("double", 21)).values == [42]
    await running.stop()
    assert await asker.messages("ml-model.double.interactive") == []
    assert running.of(ModelLoadFailed) == []


@pytest.mark.both_reply_modes
@pytest.mark.parametrize(
    "reply_to", ["victim", "ml-model.double.bulk", "amq.rabbitmq.reply-to.forged", "amq.rabbitmq.reply-to.x.y\t"]
)
async def test_a_reply_address_of_somebody_else_is_never_published_to(
    make_model: Make, declare: Declare, start_worker: Start, asker: Any, reply_to: str
) -> None:
    make_model("double")
    await declare()
    channel = await asker.connection.channel()
    await channel.declare_queue("victim", durable=True)
    running = await start_worker()
    await asker.send("double", request(1), reply_to=reply_to, message_id="sly")
    await running.until(lambda: running.of(MessageRefused))
    (refused,) = running.of(MessageRefused)
    assert (refused.code, refused.request_id, refused.model) == ("invalid", "sly", "double")
    assert (await asker.ask("double", 1)).values == [2]
    await running.stop()
    assert running.of(BatchFinished)[-1].requests == 1
    for queue in ("victim", "ml-model.double.interactive", "ml-model.double.bulk"):
        assert await asker.messages(queue) == []


@pytest.mark.both_brokers
async def test_a_forged_direct_address_costs_nobody_else_an_answer(
    make_model: Make, declare: Declare, start_worker: Start, asker: Any, tmp_path: Path, wait_for_file: Any, node: Any
) -> None:
    """RabbitMQ 3.10 closes the connection that replies to such an address; it must not be the one with the lanes.

    RabbitMQ 4.3 drops the reply.
    """
    make_model("gated", GATED.replace("FOLDER", str(tmp_path)))
    await declare()
    running = await start_worker()
    name = await asker.send("gated", request(1))
    assert (await asker.answer(name)).values == [2]
    blocker = await asker.send("gated", request(100))
    await wait_for_file(tmp_path / "entered")
    start = "amq.rabbitmq.reply-to."
    for forged in (f"{start}AAAA.BBBB", f"{start}g1h2AAdyZXBseUA2AAADfwAAAABrBmDu.03GVHLhUizUfP18GS2zzcw=="):
        await asker.send("gated", request(2), reply_to=forged, correlation_id="sly")
        await asker.send("gated", request(2), reply_to=forged, correlation_id="sly")
    names = [await asker.send("gated", request(value)) for value in range(3, 6)]
    (tmp_path / "open").touch()
    assert (await asker.answer(blocker)).values == [200]
    assert [(await asker.answer(name)).values for name in names] == [[6], [8], [10]]
    if not node.version.startswith("4.3."):
        await running.until(lambda: len(running.of(MessageRefused)) == 4)
    assert {(each.code, each.request_id) for each in running.of(MessageRefused)} <= {("invalid", "sly")}
    assert running.of(BrokerDisconnected) == []
    await running.stop()
    assert await asker.messages("ml-model.gated.interactive") == []


@pytest.mark.parametrize("reply_mode", ["queue"], indirect=True)
async def test_where_replies_go_to_queues_a_direct_address_is_refused_before_it_is_computed(
    make_model: Make, declare: Declare, start_worker: Start, asker: Any
) -> None:
    make_model("double")
    await declare()
    running = await start_worker()
    channel = await asker.connection.channel()
    direct = "amq.rabbitmq.reply-to"
    await channel.consume(direct, lambda reply: pytest.fail(f"answered: {reply.body!r}"), no_ack=True)
    channel.publish("ml-model-exchange", "double", Properties(reply_to=direct, message_id="d"), request(1))
    await running.until(lambda: running.of(MessageRefused))
    (refused,) = running.of(MessageRefused)
    assert (refused.request_id, refused.code) == ("d", "invalid")
    assert "topology.reply_mode is queue: use a server-named queue bound to ml-reply-exchange" in refused.error
    assert (await asker.ask("double", 4)).values == [8]
    await running.stop()
    assert sum(batch.requests for batch in running.of(BatchFinished)) == 1


@pytest.mark.both_reply_modes
async def test_without_reply_to_it_is_run_and_counted(
    make_model: Make, declare: Declare, start_worker: Start, asker: Any
) -> None:
    make_model("double")
    await declare()
    running = await start_worker()
    await asker.send("double", request(1), reply_to=None, correlation_id=None)
    await asker.send("double", b"garbage", reply_to=None, correlation_id=None)
    await running.until(lambda: running.of(BatchFinished) and running.of(MessageRefused))
    assert running.of(BatchFinished)[0].outcomes == {"succeeded": 1}
    await running.stop()
    assert await asker.messages("ml-model.double.interactive") == []
    assert asker.replies == {}


@pytest.mark.both_reply_modes
async def test_replies_to_a_configured_durable_queue_are_stored(
    make_model: Make, declare: Declare, start_worker: Start, asker: Any
) -> None:
    make_model("double")
    await declare()
    channel = await asker.connection.channel()
    await channel.declare_queue("results.mine", durable=True, arguments={"x-queue-type": "quorum"})
    await channel.bind_queue("results.mine", "ml-reply-exchange", "results.mine")  # needed where replies go to queues
    running = await start_worker(reply_prefixes=("results.",))
    await asker.send("double", request(4), reply_to="results.mine")
    await asker.send("double", request(4), reply_to="results.gone")
    await running.until(lambda: sum(batch.requests for batch in running.of(BatchFinished)) == 2)
    await running.stop()
    (stored,) = await asker.messages("results.mine")
    assert stored.properties.delivery_mode == 2
    assert await asker.messages("ml-model.double.interactive") == []


@pytest.mark.both_brokers
async def test_a_request_that_waited_too_long_is_not_computed(
    make_model: Make, declare: Declare, start_worker: Start, asker: Any, tmp_path: Path, wait_for_file: Any
) -> None:
    make_model("gated", GATED.replace("FOLDER", str(tmp_path)))
    await declare()
    running = await start_worker()
    blocker = await asker.send("gated", request(100))
    await wait_for_file(tmp_path / "entered")
    deadline_ms = int(time.time() * 1000) + 50
    late = await asker.send("gated", request(1), headers={"deadline": deadline_ms})
    while time.time() * 1000 <= deadline_ms:  # noqa: ASYNC110 - the clock gives no signal
        await asyncio.sleep(0.01)
    (tmp_path / "open").touch()
    assert (await asker.answer(blocker)).status == ""
    assert (await asker.answer(late)).status == "expired"
    await running.stop()
    assert sum(batch.requests for batch in running.of(BatchFinished)) == 1


def request(*values: float) -> bytes:
    data = ",".join(f"{value:g}" for value in values)
    tensor = f'{{"name":"x","datatype":"FP64","shape":[{len(values)}],"data":[{data}]}}'
    return f'{{"inputs":[{tensor}]}}'.encode()


async def ask_at(asker: Any, queue: str, key: str, body: bytes, *, exchange: str = "ml-redirect") -> Any:
    """Ask with a routing key that the model exchange does not have, straight into a queue."""
    channel = asker.channel
    if exchange:
        await channel.declare_exchange(exchange, "direct", durable=True)
        await channel.bind_queue(queue, exchange, key)
    settled: asyncio.Future[Settled] = asyncio.get_running_loop().create_future()
    properties = Properties(correlation_id="at", reply_to="amq.rabbitmq.reply-to")
    channel.publish(exchange, key, properties, body, mandatory=True, on_settled=settled.set_result)
    assert await settled is Settled.ACKED
    return await asker.answer("at")
