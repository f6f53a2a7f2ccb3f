"""Asks over HTTP, through several gateways; goes on to the next one when one refuses the connection."""

from __future__ import annotations

import asyncio
import time
from http import HTTPStatus

from tests.chaos import ledger
from tests.chaos.callers.caller import Caller
from tests.chaos.callers.http_connection import HttpConnection, Response
from tests.chaos.question import Question, answer_of, body_of

_CODES = {
    400: "invalid", 404: "not_found", 413: "too_large", 415: "unsupported", 429: "overloaded", 500: "failed",
    503: "unavailable", 504: "expired",
}  # fmt: skip
_PATIENCE_S = 4.0
_CONNECT_S = 2.0
_AGAIN_S = 0.2
"""After all gateways refused."""


async def run(caller: Caller) -> None:
    """Until told to end."""
    await caller.run(_Pool(caller).ask)


class _Pool:
    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self._idle: list[list[HttpConnection]] = [[] for _ in caller.plan.addresses]
        self._turn = caller.plan.number

    async def ask(self, question: Question) -> None:
        """One request, to its one outcome."""
        self._turn += 1
        asking = asyncio.ensure_future(self._ask(question))
        if self._caller.withdraws():
            done, _ = await asyncio.wait([asking], timeout=0.02)
            if not done:
                await self._withdraw(question, asking)
                return
        await asking

    async def _withdraw(self, question: Question, asking: asyncio.Future[None]) -> None:
        """Hang up, unless the answer is here already."""
        asking.cancel()
        try:
            await asking
        except asyncio.CancelledError:
            self._caller.ended(question.id, ledger.WITHDRAWN)

    async def _ask(self, question: Question) -> None:
        count = len(self._idle)
        step = 0
        while (left_s := question.deadline - time.monotonic()) > 0:
            index = (self._turn + step) % count
            step += 1
            try:
                connection = await self._connected(index, min(_CONNECT_S, left_s))
            except (OSError, TimeoutError):
                await asyncio.sleep(0 if step % count else min(_AGAIN_S, left_s))
            else:
                await self._exchange(question, connection, index)
                return
        self._caller.ended(question.id, "unavailable")

    async def _exchange(self, question: Question, connection: HttpConnection, index: int) -> None:
        via = f"gateway-{index}"
        left_s = max(0.001, question.deadline - time.monotonic())
        try:
            response = await asyncio.wait_for(connection.ask(_request(question, left_s)), left_s + _PATIENCE_S)
        except ConnectionError:
            self._caller.ended(question.id, ledger.UNKNOWN, via=via)
        except TimeoutError:
            self._caller.ended(question.id, ledger.NONE, via=via)
        else:
            if connection.open:
                self._idle[index].append(connection)
            self._told(question, response, via)

    async def _connected(self, index: int, timeout_s: float) -> HttpConnection:
        idle = self._idle[index]
        while idle:
            connection = idle.pop()
            if connection.open:
                return connection
        host, port = self._caller.plan.addresses[index]

        def stray(data: bytes) -> None:
            self._caller.stray(f"gateway-{index}", repr(data))

        connecting = asyncio.get_running_loop().create_connection(lambda: HttpConnection(stray), host, port)
        _, connection = await asyncio.wait_for(connecting, timeout_s)
        return connection

    def _told(self, question: Question, response: Response, via: str) -> None:
        status, body = response
        if status == HTTPStatus.OK:
            self._caller.ended(question.id, ledger.OK, answer_of(body), via)
            return
        code = _CODES.get(status, f"status {status}")
        if status == HTTPStatus.INTERNAL_SERVER_ERROR and b"dead-letter queue" in body:
            code = "dead"
        said = "" if code in ("overloaded", "unavailable", "expired", "dead") else body[:200].decode("utf-8", "replace")
        self._caller.ended(question.id, code, said, via)


def _request(question: Question, timeout_s: float) -> bytes:
    body = body_of(question)
    head = (
        f"POST /v2/models/{question.model}/infer HTTP/1.1\r\nhost: chaos\r\ncontent-type: application/json\r\n"
        f"inference-timeout-ms: {int(timeout_s * 1000)}\r\nx-request-id: {question.id}\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
