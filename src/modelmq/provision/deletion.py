"""Deletes queues that nobody named, if they are empty and unused at the last moment; the others stay.

RabbitMQ can refuse to delete a classic queue in use by itself, but not a quorum queue. So: what leads to the queues
was taken away before; then all statistics that were under way have time to arrive, they are read, the queues
themselves are asked, and what is still unused goes. Does not know which queues ought to go.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor

import msgspec

from modelmq.broker.management import Management
from modelmq.broker.management_values import QueueInfo
from modelmq.errors import ProvisionError
from modelmq.provision.removals import in_use
from modelmq.provision.usage import Count

_SETTLE_S = 6.0  # a quorum queue tells how many messages are unacknowledged every 5 s


class Guard(msgspec.Struct, frozen=True):
    """How to be sure that a queue is unused."""

    count: Count
    sleep: Callable[[float], None] = time.sleep


class InUse(msgspec.Struct, frozen=True):
    """A queue that was not deleted, and what it holds or who reads it."""

    name: str
    use: str


def uses(names: Iterable[str], vhost: str, management: Management, count: Count) -> tuple[InUse, ...]:
    """Which of these queues are used, by the statistics and by what the queues say. Raises ProvisionError."""
    chosen = set(names)
    there = [queue for queue in management.queues(vhost) if queue.name in chosen]
    younger = {queue.name: queue.depth for queue in management.queue_totals(vhost)}
    counts = count([queue.name for queue in there])
    found = []
    for queue in there:
        ready, consumers = counts[queue.name]
        messages = max(queue.messages, younger.get(queue.name, 0), ready)
        most = msgspec.structs.replace(queue, messages=messages, consumers=max(queue.consumers, consumers))
        if use := in_use(most):
            found.append(InUse(queue.name, use))
    return tuple(found)


def delete_unused(
    names: Sequence[str], vhost: str, management: Management, guard: Guard, pool: Executor
) -> tuple[InUse, ...]:
    """Deletes those that are unused; tells those that are not. Raises ProvisionError."""
    if not names:
        return ()
    guard.sleep(_SETTLE_S)
    used = uses(names, vhost, management, guard.count)
    spared = {each.name for each in used}
    there = [queue for queue in management.queues(vhost) if queue.name in names and queue.name not in spared]
    deleted = pool.map(lambda queue: _delete(queue, vhost, management), there)
    return (*used, *(each for each in deleted if each is not None))


def _delete(queue: QueueInfo, vhost: str, management: Management) -> InUse | None:
    if queue.type != "classic":
        management.delete_queue(vhost, queue.name)
    elif not management.delete_unused_queue(vhost, queue.name):
        return InUse(queue.name, "is in use")
    return None


def still_used(used: Sequence[InUse]) -> ProvisionError:
    """One sentence about all of them."""
    first = ", ".join(f'"{each.name}" {each.use}' for each in used[:3])
    more = f", and {len(used) - 3} more" if len(used) > 3 else ""
    names = " ".join(f"--delete {each.name}" for each in used[:3])
    return ProvisionError(
        f"Queues are in use ({first}{more}): stop what uses them and let them run empty, or lose what they hold with "
        f"{names}{' …' if more else ''}."
    )
