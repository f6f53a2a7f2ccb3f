"""What a Pulumi stack may delete, and the question that is asked before it does: is it empty?

A queue that holds messages or has consumers stays, and so does everything that would go with it: the question is put
before the first binding is taken away. RabbitMQ's own counts are up to five seconds old, so they are read again after
they had time to arrive. Knows nothing of the component.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import NamedTuple

import pulumi

from modelmq.broker.management import Management
from modelmq.broker.management_values import QueueInfo
from modelmq.errors import ProvisionError

_SETTLE_S = 6.0  # RabbitMQ gathers statistics every 5 s
_HOOK = "modelmq-is-empty"


class Deletion(NamedTuple):
    """The names that are not protected, and the hook that looks before they go."""

    allowed: frozenset[str]
    hooks: pulumi.ResourceHookBinding | None


NO_DELETION = Deletion(frozenset(), None)


def allow(names: Collection[str], vhost: str, management: Callable[[], Management]) -> Deletion:
    """These queues, and the virtual host where it is named, may be deleted while they hold nothing."""
    if not names:
        return NO_DELETION
    allowed = frozenset(names)

    async def is_empty(_: pulumi.ResourceHookArgs) -> None:
        """Refuses by raising."""
        await asyncio.to_thread(_look, allowed, vhost, management)
        await asyncio.sleep(_SETTLE_S)
        await asyncio.to_thread(_look, allowed, vhost, management)

    hook = pulumi.ResourceHook(_HOOK, is_empty)
    return Deletion(allowed, pulumi.ResourceHookBinding(before_delete=[hook]))


def _look(allowed: frozenset[str], vhost: str, management: Callable[[], Management]) -> None:
    with management() as api:
        if vhost not in {each.name for each in api.vhosts()}:
            return
        queues = api.queues(vhost)
    for queue in queues:
        # With the virtual host goes everything in it, whoever made it.
        if (queue.name in allowed or vhost in allowed) and (use := _use(queue)):
            raise ProvisionError(
                f'Nothing was deleted: the queue "{queue.name}" {use}; stop what uses it and let it run empty, or take '
                "its name out of allow_delete."
            )


def _use(queue: QueueInfo) -> str:
    if queue.state not in ("", "running"):
        return f"is {queue.state}, so that nobody can tell what it holds"
    parts = []
    if queue.messages:
        parts.append(f"holds {queue.messages} message{'s' if queue.messages > 1 else ''}")
    if queue.consumers:
        parts.append(f"has {queue.consumers} consumer{'s' if queue.consumers > 1 else ''}")
    return " and ".join(parts)
