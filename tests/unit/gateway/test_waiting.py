from __future__ import annotations

import asyncio

import pytest

from modelmq.errors import Unavailable
from modelmq.gateway.waiting import LEAST_S, Waiting


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


async def started(waiting: Waiting, model: str, now_s: float) -> asyncio.Task[None]:
    task = asyncio.create_task(waiting.until(forever(), model, now_s))
    await asyncio.sleep(0)
    return task


async def test_only_what_waits_long_enough_for_a_given_up_model_is_ended() -> None:
    waiting = Waiting()
    lost, fresh, other = [
        await started(waiting, model, at) for model, at in (("gone", 10.0), ("gone", 10.5), ("well", 0.0))
    ]
    assert len(waiting) == 3
    waiting.give_up(lambda model: "It is gone." if model == "gone" else None, 10.0 + LEAST_S)
    with pytest.raises(Unavailable, match=r"^It is gone\.$"):
        await lost
    assert not fresh.done()
    assert not other.done()
    assert len(waiting) == 2
    for task in (fresh, other):
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert len(waiting) == 0


async def test_a_caller_that_leaves_at_the_same_time_is_cancelled_not_answered() -> None:
    waiting = Waiting()
    task = await started(waiting, "gone", 0.0)
    waiting.give_up(lambda _: "It is gone.", 5.0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_answers_and_errors_pass_through() -> None:
    waiting = Waiting()

    async def fails() -> None:
        raise ValueError("it is so")

    assert await waiting.until(asyncio.sleep(0, "answer"), "m", 0.0) == "answer"
    with pytest.raises(ValueError, match="it is so"):
        await waiting.until(fails(), "m", 0.0)
    assert len(waiting) == 0
