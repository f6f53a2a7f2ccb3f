"""What a Pulumi stack may delete, and the question that is asked before it does: is it empty?

A queue that holds messages or has consumers stays, and so does all that would go with it: the question is put before
the first binding is taken away, and again before the first queue goes. RabbitMQ's counts are up to five seconds old,
so each time they are read after they had time to arrive. Knows nothing of the component.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from typing import NamedTuple

import msgspec
import pulumi

from modelmq.broker.management import Management
from modelmq.errors import ProvisionError
from modelmq.provision.removals import in_use
from modelmq.retry_ladder import RUNGS_MS, queue_of

_SETTLE_S = 6.0  # a quorum queue tells how many messages it has every 5 s
_NAME = "modelmq-unused-before"


class Deletion(NamedTuple):
    """The names that are not protected, and the hooks of what goes: at first, then queues, then the virtual host."""

    allowed: frozenset[str]
    first: pulumi.ResourceHookBinding | None
    queue: pulumi.ResourceHookBinding | None
    vhost: pulumi.ResourceHookBinding | None


NO_DELETION = Deletion(frozenset(), None, None, None)


def allow(names: Collection[str], vhost: str, connect: Callable[[], Management]) -> Deletion:
    """These queues, and the virtual host where it is named, may be deleted while nobody uses them.

    To be called while a program runs: the engine learns of the hooks. With the virtual host goes everything in it, so
    where it is named, every queue in it must be unused, whoever made it. The delay queues are all models', so they are
    let go of with the virtual host and need not be named.
    """
    if not names:
        return NO_DELETION
    allowed = frozenset(names) | (frozenset(map(queue_of, RUNGS_MS)) if vhost in names else frozenset())

    async def look() -> None:
        await asyncio.to_thread(_refuse_used, allowed, vhost, connect)

    async def look_in_time() -> None:
        # A count may be old in both ways: of a queue that just got a message, or just lost its last.
        await asyncio.sleep(_SETTLE_S)
        try:
            await look()
        except ProvisionError:
            await asyncio.sleep(_SETTLE_S)
            await look()

    return Deletion(
        allowed, _hook("anything", _once(look_in_time)), _hook("queues", _once(look_in_time)), _hook("vhost", look)
    )


def _once(check: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
    """One check for all that ask, also at one time."""
    asked: list[asyncio.Task[None]] = []

    async def run() -> None:
        await check()

    async def answer() -> None:
        if not asked:
            asked.append(asyncio.create_task(run()))
        await asyncio.shield(asked[0])

    return answer


def _hook(what: str, check: Callable[[], Awaitable[None]]) -> pulumi.ResourceHookBinding:
    async def before(_: pulumi.ResourceHookArgs) -> None:
        await check()

    return pulumi.ResourceHookBinding(before_delete=[pulumi.ResourceHook(f"{_NAME}-{what}", before)])


def _refuse_used(allowed: frozenset[str], vhost: str, connect: Callable[[], Management]) -> None:
    with connect() as management:
        if vhost not in {each.name for each in management.vhosts()}:
            return
        queues = management.queues(vhost)
        younger = {totals.name: totals.depth for totals in management.queue_totals(vhost)}
    for queue in queues:
        most = msgspec.structs.replace(queue, messages=max(queue.messages, younger.get(queue.name, 0)))
        if (queue.name in allowed or vhost in allowed) and (use := in_use(most)):
            raise ProvisionError(
                f'The queue "{queue.name}" {use}: stop what uses it and let it run empty, or take its name out of '
                "allow_delete."
            )
