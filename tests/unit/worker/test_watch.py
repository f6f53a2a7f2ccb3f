from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any

from modelmq.worker.watch import Watch


def item(left_s: float = 60.0, *, withdrawn: bool = False, is_open: bool = True) -> Any:
    origin = SimpleNamespace(open=is_open)
    return SimpleNamespace(deadline_s=time.monotonic() + left_s, withdrawn=withdrawn, origin=origin)


async def test_a_run_goes_on_while_anybody_waits_and_the_end_of_waiting_is_told_once() -> None:
    told: list[bool] = []
    watch = Watch(lambda: told.append(True))
    items = [item(), item(), item()]
    watch.begin(items)
    items[0].withdrawn = True
    watch.look()
    items[1].origin.open = False
    watch.look()
    assert (told, watch.told) == ([], False)
    items[2].withdrawn = True
    watch.look()
    watch.look()
    assert (told, watch.told) == ([True], True)
    watch.end()
    assert watch.told  # until the next run
    watch.begin([item()])
    assert not watch.told
    watch.close()


async def test_the_last_deadline_ends_the_waiting_also_behind_a_run_with_an_earlier_one() -> None:
    told = asyncio.Event()
    watch = Watch(told.set)
    watch.begin([item(0.01)])
    watch.end()
    last = item(0.05)
    watch.begin([item(0.02), last])
    await asyncio.wait_for(told.wait(), 20)
    assert time.monotonic() >= last.deadline_s
    watch.close()


async def test_between_runs_nothing_is_told() -> None:
    told: list[bool] = []
    watch = Watch(lambda: told.append(True))
    watch.look()
    items = [item()]
    watch.begin(items)
    watch.end()
    items[0].withdrawn = True
    watch.look()
    assert told == []
    watch.close()
