"""`python -m tests.chaos.callers`: one caller. The first line of its input is its plan, which may hold a password."""

from __future__ import annotations

import asyncio
import os

import msgspec
import uvloop

from tests.chaos import mutations
from tests.chaos.callers import client_caller, http_caller, pika_caller
from tests.chaos.callers.caller import Caller, Plan

_KINDS = {"http": http_caller.run, "client": client_caller.run, "pika": pika_caller.run}


async def main(plan: Plan) -> None:
    caller = Caller(plan)
    mutations.of_caller(plan.mutation, caller)
    await _KINDS[plan.kind](caller)


def _first_line() -> bytes:
    """Byte by byte, as what follows is read by the event loop."""
    line = b""
    while not line.endswith(b"\n"):
        line += os.read(0, 1) or b"\n"
    return line


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(msgspec.json.decode(_first_line(), type=Plan)))
