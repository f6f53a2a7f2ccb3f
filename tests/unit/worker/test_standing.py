from __future__ import annotations

import asyncio
from collections.abc import Coroutine

import pytest

from modelmq.errors import BrokerError, ChannelClosed, ConnectionLost
from modelmq.worker import standing

Script = list[BrokerError | None]


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standing, "FIRST_DELAY_S", 0.001)
    monkeypatch.setattr(standing, "MAX_DELAY_S", 0.004)
    monkeypatch.setattr(standing.random, "random", lambda: 1.0)


async def kept(script: Script) -> tuple[int, list[float]]:
    """How often it was tried, and the delays, when attempts end as scripted and the last one loses the connection."""
    tries = 0
    delays: list[float] = []

    async def attempt() -> None:
        nonlocal tries
        tries += 1
        outcome = script[tries - 1] if tries <= len(script) else ConnectionLost("gone")
        if outcome is not None:
            raise outcome

    await standing.keep(attempt, lambda error, retry_in_s: delays.append(retry_in_s), asyncio.Event())
    return tries, delays


REFUSED = ChannelClosed("no queue", reply_code=404)


async def test_a_lost_connection_ends_it() -> None:
    assert await kept([]) == (1, [])


async def test_refusals_are_told_with_growing_delays_up_to_the_most() -> None:
    assert await kept([REFUSED] * 5) == (6, [0.001, 0.002, 0.004, 0.004, 0.004])


async def test_an_attempt_that_worked_forgives_the_refusals_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standing, "HELD_S", 0.0)
    assert await kept([REFUSED, REFUSED, None, REFUSED]) == (5, [0.001, 0.002, 0.001])


async def test_what_ends_at_once_is_tried_at_once_and_then_with_growing_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    async def wait_for(waiting: Coroutine[None, None, None], delay_s: float) -> None:
        waiting.close()
        waits.append(delay_s)

    monkeypatch.setattr(standing.asyncio, "wait_for", wait_for)
    assert await kept([None] * 5) == (6, [])
    assert waits == [0.0, 0.001, 0.002, 0.004, 0.004]


def test_chance_spreads_over_half_of_a_delay() -> None:
    assert standing.delay_after_s(1, 0.0) == pytest.approx(standing.delay_after_s(1, 1.0) / 2)


async def test_being_told_to_stop_ends_the_wait_after_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standing, "FIRST_DELAY_S", 3600.0)
    stopping = asyncio.Event()

    async def attempt() -> None:
        raise REFUSED

    async with asyncio.timeout(10):
        await standing.keep(attempt, lambda error, retry_in_s: stopping.set(), stopping)


async def test_nothing_is_tried_once_told_to_stop() -> None:
    stopping = asyncio.Event()
    stopping.set()

    async def attempt() -> None:
        raise AssertionError

    await standing.keep(attempt, lambda error, retry_in_s: None, stopping)
