"""Asks with the Python client, straight over the broker."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from modelmq import Client
from modelmq.errors import ModelMQError, RequestError
from tests.chaos import ledger
from tests.chaos.callers.caller import Caller
from tests.chaos.question import Question, answer_of, body_of

_PATIENCE_S = 4.0


async def run(caller: Caller) -> None:
    """Until told to end."""
    mode: Any = caller.plan.reply_mode
    async with Client(caller.plan.url, name="chaos-client", reply_mode=mode) as client:

        async def ask(question: Question) -> None:
            left_s = question.deadline - time.monotonic()
            asking = asyncio.ensure_future(client.infer_json(question.model, body_of(question), timeout_s=left_s))
            if caller.withdraws():
                done, _ = await asyncio.wait([asking], timeout=0.02)
                if not done:
                    asking.cancel()
            try:
                body = await asyncio.wait_for(asking, left_s + _PATIENCE_S)
            except asyncio.CancelledError:
                caller.ended(question.id, ledger.WITHDRAWN)
            except RequestError as error:
                caller.ended(question.id, error.code, "" if error.retryable else error.message[:200])
            except TimeoutError:
                caller.ended(question.id, ledger.NONE)
            except ModelMQError as error:
                caller.ended(question.id, "unavailable", error.message[:200])
            else:
                caller.ended(question.id, ledger.OK, answer_of(body))

        await caller.run(ask)
