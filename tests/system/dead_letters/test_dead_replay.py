"""What leaves a dead-letter queue is confirmed elsewhere first, or was told to go; also when we are killed between."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from typing import Any

import pytest

from modelmq import bundles
from modelmq.bundles import RequestPart
from modelmq.dead_letters import desk as desks
from modelmq.dead_letters.desk import Order, desk
from modelmq.dead_letters.replay import KEEP, RESET, Deadline
from modelmq.dead_letters.selection import Selection

pytestmark = [pytest.mark.broker, pytest.mark.both_brokers]

DIGITS, LANE, BULK = "ml-dead-letter.digits", "ml-model.digits.interactive", "ml-model.digits.bulk"
SOON, LATER = 1_000, 4_000_000_000_000

# Is killed in the moment in which it would let go of what was confirmed.
_KILLED_BEFORE_THE_ACK = """
import os, signal, sys
from modelmq.amqp import Channel
from modelmq.cli.app import main

Channel.ack = lambda *arguments, **options: os.kill(os.getpid(), signal.SIGKILL)
sys.argv[1:] = ["dead", "replay", "digits", "--deadline", "model", "--config", sys.argv[1]]
main()
"""


def bodies(count: int) -> list[bytes]:
    return [b'{"n": %d}' % n for n in range(count)]


async def test_a_replay_keeps_the_request_and_strips_what_no_longer_holds(installation: Any, office: Any) -> None:
    await office.letters("digits", *bodies(3), mine="kept", deadline=LATER, CC=["other.1"])
    async with desk(installation.settings) as at:
        done = await at.replay("digits", Selection(limit=2), Order(KEEP, SOON))
    assert (done.letters, done.requests, dict(done.kept)) == (2, 2, {})
    assert await office.count(DIGITS) == 1
    assert await office.count("ml-model.other.interactive") == 0
    first, second = await office.take(LANE)
    assert [first.body, second.body] == bodies(2)
    assert (first.exchange, first.routing_key) == ("ml-redeliver-exchange", "digits.1")
    properties = first.properties
    assert (properties.reply_to, properties.expiration, properties.delivery_mode) == (None, None, 2)
    assert (properties.message_id, properties.correlation_id, properties.content_type) == (
        "r-0",
        "c",
        "application/json",
    )
    assert properties.headers == {"mine": "kept", "deadline": LATER, "replays": 1}


async def test_a_deadline_that_has_passed_is_not_replayed_but_can_be_reset(installation: Any, office: Any) -> None:
    await office.letters("digits", *bodies(2), deadline=SOON)
    async with desk(installation.settings) as at:
        done = await at.replay("digits", Selection(), Order(KEEP, 2 * SOON))
        assert done.letters == 0
        assert list(done.kept.values()) == [2]
        assert "would only expire again" in next(iter(done.kept))
        assert await office.count(DIGITS) == 2
        await at.replay("digits", Selection(limit=1), Order(RESET, 2 * SOON))
        await at.replay("digits", Selection(), Order(Deadline(keep=False, within_s=60.0), LATER))
    one, two = await office.take(LANE)
    assert one.properties.headers == {"replays": 1}
    assert two.properties.headers == {"replays": 1, "deadline": LATER + 60_000}


async def test_a_dry_run_moves_nothing(installation: Any, office: Any) -> None:
    await office.letters("digits", *bodies(2))
    async with desk(installation.settings) as at:
        done = await at.replay("digits", Selection(), Order(KEEP, SOON, dry_run=True))
    assert done.letters == 2
    assert (await office.count(DIGITS), await office.count(LANE)) == (2, 0)


async def test_killed_between_confirm_and_ack_a_letter_is_in_both_queues(installation: Any, office: Any) -> None:
    await office.letters("digits", *bodies(3))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _KILLED_BEFORE_THE_ACK, str(installation.config), stdout=subprocess.PIPE
    )
    await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == -signal.SIGKILL
    await office.until(DIGITS, 3)
    assert await office.count(LANE) == 3
    async with desk(installation.settings) as at:
        assert (await at.replay("digits", Selection(), Order(RESET, SOON))).letters == 3
    assert await office.count(DIGITS) == 0
    assert [each.body for each in await office.take(LANE)] == bodies(3) * 2


async def test_what_is_not_taken_stays_where_it_was(
    installation: Any, office: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await office.letters("digits", *bodies(4))
    await office.letters("other", *bodies(2))
    with installation.admin() as admin:
        vhost = installation.settings.broker.vhost
        before = next(policy for policy in admin.policies(vhost) if policy.name == "ml-interactive")
        full = {**before.definition, "max-length": 0}
        admin.put_policy(vhost, type(before)(before.name, before.pattern, before.apply_to, full, before.priority))
        try:
            await office.refuses("ml-model-exchange", "digits.1")
            fillers = await office.count(LANE)
            async with desk(installation.settings) as at:
                done = await at.replay("digits", Selection(), Order(KEEP, SOON))
                assert dict(done.kept) == {"the queue of its model is full": 4 - done.letters}
                assert done.letters + await office.count(DIGITS) == 4
                assert await office.count(LANE) == fillers + done.letters
        finally:
            admin.put_policy(vhost, before)
    monkeypatch.setattr(desks, "CONFIRM_S", 0.0)
    async with desk(installation.settings) as at:
        done = await at.replay("other", Selection(), Order(KEEP, SOON))
        assert dict(done.kept) == {"RabbitMQ has not confirmed it": 2}
    assert await office.count("ml-dead-letter.other") == 2


async def test_letters_of_a_model_that_is_gone_end_in_unrouted_once(installation: Any, office: Any) -> None:
    await office.put("ml-redeliver-exchange", "gone.1", *bodies(3))
    assert await office.count("ml-unrouted") == 3
    async with desk(installation.settings) as at:
        done = await at.replay("@unrouted", Selection(), Order(KEEP, SOON, frozenset({"digits"})))
        assert dict(done.kept) == {"no model takes its routing key any more": 3}
        assert (await at.replay("@unrouted", Selection(), Order(KEEP, SOON))).letters == 3
    assert [each.body for each in await office.take("ml-unrouted")] == bodies(3)


async def test_a_bundle_goes_out_as_single_requests(installation: Any, office: Any) -> None:
    parts = [RequestPart(f"c-{n}", LATER, f"m-{n}", "application/json", {"mine": n}, b"{}") for n in range(3)]
    await office.put(
        "ml-dead-letter-exchange",
        "digits.bulk",
        bundles.encode(parts),
        content_type=bundles.BUNDLE,
        reply_to="amq.gen-x",
    )
    async with desk(installation.settings) as at:
        (letter,) = (await at.list_letters("digits", Selection(), SOON)).letters
        assert (letter.requests, letter.deadline_ms) == (3, LATER)
        done = await at.replay("digits", Selection(), Order(KEEP, SOON))
    assert (done.letters, done.requests) == (1, 3)
    again = await office.take(BULK)
    assert [each.properties.correlation_id for each in again] == ["c-0", "c-1", "c-2"]
    assert again[1].properties.headers == {"mine": 1, "deadline": LATER, "replays": 1}
    assert {each.properties.reply_to for each in again} == {None}


async def test_purge_takes_what_is_selected_and_nothing_else(installation: Any, office: Any) -> None:
    await office.letters("digits", *bodies(5))
    await office.letters("digits", b"other", reason="delivery_limit")
    async with desk(installation.settings) as at:
        assert await at.purge("digits", Selection(reason="model_process_died", limit=3), SOON) == 3
        left = [letter.id for letter in (await at.list_letters("digits", Selection(), SOON)).letters]
        await office.letters("digits", b"came later")
        assert await at.purge("digits", Selection(ids=frozenset(left)), SOON) == 3
    assert [each.body for each in await office.take(DIGITS)] == [b"came later"]
