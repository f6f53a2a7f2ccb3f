"""Looking at dead letters changes nothing: not which there are, not their order, not who may look next."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from typing import Any

import pytest

from modelmq.amqp import connect
from modelmq.cli import status
from modelmq.dead_letters import looking
from modelmq.dead_letters.desk import desk, operator_options
from modelmq.dead_letters.looking import look
from modelmq.dead_letters.selection import Selection
from modelmq.errors import LettersError

pytestmark = [pytest.mark.broker, pytest.mark.both_brokers]

DIGITS = "ml-dead-letter.digits"
PATIENCE_S = 30.0

# Takes letters in two pages, says so, and waits to be killed with all of them in its hand.
_TAKES = """
import asyncio, sys
from modelmq.amqp import connect, options_from_url
from modelmq.dead_letters.looking import look

async def main(url, queue):
    async def see(page):
        see.count = getattr(see, "count", 0) + len(page)
        if see.count == 40:
            print("taken", flush=True)
            await asyncio.Event().wait()
        return ()
    await look(await connect(options_from_url(url)), queue, see)

asyncio.run(main(*sys.argv[1:]))
"""


def bodies(count: int, start: int = 0) -> list[bytes]:
    return [b'{"n": %d}' % n for n in range(start, count)]


async def order(office: Any) -> list[bytes]:
    return [each.body for each in await office.take(DIGITS)]


async def test_a_thousand_looks_change_neither_entries_nor_order(installation: Any, office: Any) -> None:
    await office.letters("digits", *bodies(20))
    known: list[str] = []
    async with desk(installation.settings) as at:
        known = [letter.id for letter in (await at.list_letters("digits", Selection(), 0)).letters]
        for n in range(1000 if installation.node.version.startswith("3.") else 250):
            limit = 1 + n % 25  # a look at a few must not turn the queue
            found = await at.list_letters("digits", Selection(limit=limit), 0)
            assert (found.total, found.matched) == (20, 20)
            assert [letter.id for letter in found.letters] == known[:limit]
    assert len(set(known)) == 20
    assert await office.count(DIGITS) == 20
    assert await order(office) == bodies(20)


async def test_many_pages_come_back_in_order_after_filters_and_failures(installation: Any, office: Any) -> None:
    await office.letters("digits", *bodies(1500))
    async with desk(installation.settings) as at:
        for _ in range(2):
            found = await at.list_letters("digits", Selection(limit=1), 0)
            assert (found.total, found.matched, len(found.letters)) == (1500, 1500, 1)
    connection = await connect(operator_options(installation.settings))

    async def fails(page: Any) -> Any:
        if b'{"n": 1000}' in [each.body for each in page]:
            raise ValueError("a bug")
        return ()

    with pytest.raises(ValueError, match="a bug"):
        await look(connection, DIGITS, fails)
    await connection.close()
    assert await office.count(DIGITS) == 1500
    async with desk(installation.settings) as at:
        assert (await at.list_letters("digits", Selection(limit=1), 0)).total == 1500
    assert (await order(office))[:1000] != bodies(1000)[::-1]


async def test_a_full_queue_drops_its_oldest_and_status_says_so(installation: Any, office: Any) -> None:
    await office.letters("digits", *bodies(1605))
    await office.until(DIGITS, 1600)
    async with asyncio.timeout(PATIENCE_S):  # RabbitMQ tells its counts every 5 s
        while True:
            found = await asyncio.to_thread(status.look, installation.settings)
            letters = {each.place: each for each in found.letters}
            if letters["digits"].letters == 1600:
                break
            await asyncio.sleep(0.2)
    assert letters["digits"] == status.LettersStatus("digits", 1600, 1600, full=True)
    assert not letters["other"].full
    (said,) = [problem for problem in found.problems if "dead letters" in problem]
    assert said.startswith(
        f"The queue {DIGITS} is full (1600 dead letters): each new one pushes the oldest out, for good"
    )
    assert await order(office) == bodies(1605, 5)


async def test_letters_that_come_while_somebody_looks_stand_behind(installation: Any, office: Any) -> None:
    await office.letters("digits", *bodies(40))
    connection = await connect(operator_options(installation.settings))
    pages: list[int] = []

    async def see(page: Any) -> Any:
        pages.append(len(page))
        if len(pages) == 1:
            await office.letters("digits", *bodies(45, 40))
        return ()

    assert await look(connection, DIGITS, see) == 40
    assert sum(pages) == 40
    await connection.close()
    assert await order(office) == bodies(45)


async def test_who_is_killed_while_looking_loses_nothing(installation: Any, office: Any, node: Any) -> None:
    await office.letters("digits", *bodies(40))
    vhost = installation.settings.broker.vhost
    url = f"amqp://{node.admin_username}:{node.admin_password}@127.0.0.1:{node.amqp_port}/{vhost}"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", _TAKES, url, DIGITS, stdout=subprocess.PIPE)
    try:
        assert process.stdout
        assert await asyncio.wait_for(process.stdout.readline(), PATIENCE_S) == b"taken\n"
        assert await office.count(DIGITS) == 0
    finally:
        os.kill(process.pid, signal.SIGKILL)
        await process.wait()
    await office.until(DIGITS, 40)
    assert sorted(await order(office)) == sorted(bodies(40))


async def test_two_who_look_at_one_time_wait_for_each_other(installation: Any, office: Any) -> None:
    await office.letters("digits", *bodies(40))

    async def once() -> int:
        async with desk(installation.settings) as at:
            return (await at.list_letters("digits", Selection(), 0)).total

    assert await asyncio.gather(*(once() for _ in range(5))) == [40] * 5
    assert await order(office) == bodies(40)


async def test_who_consumes_is_told_of(installation: Any, office: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looking, "_PATIENCE_S", 0.2)
    channel = await office.connection.channel()
    await channel.consume(DIGITS, lambda delivery: None)
    async with desk(installation.settings) as at:
        with pytest.raises(LettersError, match=f"^Somebody else is looking at {DIGITS}"):
            await at.list_letters("digits", Selection(), 0)
    await channel.close()


async def test_large_letters_are_taken_a_few_at_a_time(installation: Any, office: Any) -> None:
    large = 4 * 2**20
    await office.letters("digits", *(bytes(large) for _ in range(60)))
    connection = await connect(operator_options(installation.settings))
    pages: list[int] = []

    async def see(page: Any) -> Any:
        pages.append(len(page))
        return ()

    assert await look(connection, DIGITS, see) == 60
    await connection.close()
    assert pages == [32, 16, 12]
    assert await office.count(DIGITS) == 60
