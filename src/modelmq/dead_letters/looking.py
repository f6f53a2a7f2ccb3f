"""Takes every letter of a queue into the hand, page by page, and puts back in its place what is not let go.

AMQP has no way to read without taking. A quorum queue puts what comes back behind all that came back before, so its
order holds only when everything is taken and comes back in order: page after page, each by the end of a channel of
its own, each awaited. That way it comes back when we are killed, too. Does not know what a letter is.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import NamedTuple

from modelmq.amqp import Channel, Connection, Delivery
from modelmq.dead_letters.paging import FIRST_PAGE, next_page
from modelmq.errors import BrokerError, ChannelClosed, LettersError

Handle = Callable[[Sequence[Delivery]], Awaitable[Iterable[int]]]
"""Sees a page of letters, oldest first; the delivery tags of those that may leave the queue for good."""

MOST_PAGES = 2000
_NOT_FOUND = 404
_PATIENCE_S = 30.0
"""For letters that the queue says it has, and for others to be done with it."""
_PAUSE_S = 0.1
_BLINK_S = 0.002
_TIMES = 3
_BACK_S = 2.0
"""For a page to be back; letters whose time is over never are."""


class _Held(NamedTuple):
    channel: Channel
    letters: int


async def look(connection: Connection, queue: str, handle: Handle) -> int:
    """Shows every letter that is in the queue to `handle`; how many there were.

    When this returns or raises, those that may leave have left, and all others are back in their order. Raises
    LettersError where there is no such queue or somebody else consumes from it, BrokerError, and what `handle` raises.
    """
    probe = await connection.channel()
    try:
        await _nobody_else(probe, queue)
        async with _putting_back(probe, queue) as held:
            return await _through_all(connection, probe, queue, handle, held)
    except ChannelClosed as error:
        if error.reply_code == _NOT_FOUND:
            raise no_queue(queue) from error
        raise
    finally:
        with contextlib.suppress(BrokerError):
            await probe.close()


def no_queue(queue: str) -> LettersError:
    """In words."""
    return LettersError(f"There is no queue {queue}: see modelmq dead list for the models that have one.")


async def _through_all(connection: Connection, probe: Channel, queue: str, handle: Handle, held: list[_Held]) -> int:
    # What comes while we look, as a replay that finds no queue, stands behind what is there now and is not looked at.
    left: int | None = None
    seen, size, largest_bytes = 0, FIRST_PAGE, 0
    while left is None or left > 0:
        if len(held) == MOST_PAGES:
            raise LettersError(f"The queue {queue} holds more letters than can be looked at: {seen} and {left} more.")
        channel = await connection.channel()
        page: list[Delivery] = []
        held.append(_Held(channel, 0))
        behind = await _take(channel, probe, queue, size if left is None else min(size, left), page)
        if not page:
            break
        held[-1] = _Held(channel, len(page))
        gone = list(await handle(page))
        for tag in gone:
            channel.ack(tag)
        held[-1] = _Held(channel, len(page) - len(gone))
        seen += len(page)
        left = behind if left is None else left - len(page)
        largest_bytes = max(largest_bytes, *(each.body_size for each in page))
        size = next_page(size, largest_bytes)
    return seen


async def _take(channel: Channel, probe: Channel, queue: str, size: int, page: list[Delivery]) -> int:
    """Fills the page with the next letters, less only when the queue has no more; how many it has behind them."""
    news = asyncio.Event()

    def on_delivery(delivery: Delivery) -> None:
        page.append(delivery)
        news.set()

    await channel.qos(size)
    tag = await channel.consume(queue, on_delivery)
    async with _in_time(f"RabbitMQ does not hand out the letters of {queue}; is a node away?"):
        while True:
            ready, consumers = await probe.count_queue(queue)
            if consumers and (len(page) >= size or not ready):
                break
            # Of a busy queue RabbitMQ says that nothing is there after 250 ms; but we are, so that is no answer.
            with contextlib.suppress(TimeoutError):
                await _until(news, page, min(size, len(page) + ready) if consumers else size)
    await channel.cancel(tag)  # else what leaves would make room for more, and what comes back would come to us
    return ready


async def _until(news: asyncio.Event, page: list[Delivery], wanted: int) -> None:
    """Raises TimeoutError: a letter that was counted may have expired."""
    async with asyncio.timeout(_PAUSE_S):
        while len(page) < wanted:
            news.clear()
            await news.wait()


@contextlib.asynccontextmanager
async def _putting_back(probe: Channel, queue: str) -> AsyncIterator[list[_Held]]:
    held: list[_Held] = []
    try:
        yield held
    finally:
        # A connection that is lost has put back everything already.
        with contextlib.suppress(BrokerError):
            await _put_back(probe, queue, held)


async def _put_back(probe: Channel, queue: str, held: Sequence[_Held]) -> None:
    loop = asyncio.get_running_loop()
    expected, patience_s = await _ready(probe, queue), _BACK_S
    for channel, letters in held:
        await channel.close()
        expected += letters
        end = loop.time() + patience_s
        while (await probe.count_queue(queue))[0] < expected:
            if loop.time() > end:  # some have expired, or the queue is full and dropped its oldest
                patience_s = _PAUSE_S
                break
            await asyncio.sleep(_BLINK_S)


async def _ready(probe: Channel, queue: str) -> int:
    """Letters in the queue now; none is believed only when told again, see `_take`."""
    for _ in range(_TIMES):
        ready, consumers = await probe.count_queue(queue)
        if ready or consumers:
            break
    return ready


async def _nobody_else(probe: Channel, queue: str) -> None:
    """Two who look at one time would each see a part, and change the order."""
    async with _in_time(f"Somebody else is looking at {queue}, or consumes from it: try again when they are done."):
        while (await probe.count_queue(queue))[1]:  # noqa: ASYNC110 - the broker tells nobody
            await asyncio.sleep(_PAUSE_S)


@contextlib.asynccontextmanager
async def _in_time(otherwise: str) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(_PATIENCE_S):
            yield
    except TimeoutError as error:
        raise LettersError(otherwise) from error
