"""`python -m benchmarks.clients echo|ask|time SIDE`: one process of a side, told what to do by JSON lines on stdin.

The first line holds the broker URL, so that no password shows in the process list. `echo` prints `ready` and answers
until stdin closes, so it never outlives the run; `ask` prints its sample as JSON; `time` answers each further line
with the seconds of that many requests sent one after another.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
from dataclasses import asdict
from typing import Any

import uvloop

from benchmarks.clients.drive import Address, Ask, Load, closed_loop, one_by_one

MODULES = {
    "modelmq": "modelmq_client",
    "modelmq-single": "single_client",
    "bare": "bare_client",
    "aiormq": "aiormq_client",
    "aio-pika": "aio_pika_client",
}


async def main(work: str, side: str) -> None:
    """Run one role until it is done."""
    module = importlib.import_module(f"benchmarks.clients.{MODULES[side]}")
    order: dict[str, Any] = json.loads(sys.stdin.readline())
    address = Address(**order["address"])
    if work == "echo":
        async with module.echoing(address, order["prefetch"]):
            print("ready", flush=True)
            await asyncio.to_thread(sys.stdin.read)
        return
    async with module.asking(address) as ask:
        if work == "ask":
            print(json.dumps(asdict(await closed_loop(ask, Load(**order["load"])))), flush=True)
        else:
            await answer_orders(ask, order["body"].encode())


async def answer_orders(ask: Ask, body: bytes) -> None:
    """Time as many requests as each line says, until stdin closes."""
    while line := await asyncio.to_thread(sys.stdin.readline):
        order = json.loads(line)
        print(json.dumps(await one_by_one(ask, body, order["count"], order["warm_up"])), flush=True)


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
