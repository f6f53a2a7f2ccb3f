"""Carries a plan out on a real broker: the writes in their order, then the deletions, with the record around both.

A thin shell: every write may be repeated, and one that fails leaves what was written before it. Decides nothing but
whether a queue that is to go is still unused.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import groupby
from typing import TypeVar

from modelmq.broker.management import Management
from modelmq.broker.management_values import BindingInfo, PermissionInfo, PolicyInfo
from modelmq.errors import ProvisionError
from modelmq.provision.deletion import Guard, InUse, delete_unused
from modelmq.provision.ownership import parameter_name, written
from modelmq.provision.passwords import SALT_BYTES, password_hash
from modelmq.provision.plan_values import Change, Owned, Plan, Removal
from modelmq.topology_values import Binding, Exchange, Permission, Policy, Queue, User, Vhost

_WRITERS = 4
T = TypeVar("T")


class Target:
    """One virtual host of one broker, and what is needed to write to it."""

    def __init__(
        self, vhost: str, management: Management, passwords: Mapping[str, str], guard: Guard | None = None
    ) -> None:
        self.vhost = vhost
        self.management = management
        self.passwords = passwords
        self.guard = guard


def execute(made: Plan, target: Target) -> tuple[InUse, ...]:
    """Everything in the plan; the queues that were to go and turned out to be in use. Raises ProvisionError."""
    vhosts = [change for change in made.changes if change.kind == "vhost"]
    others = [change for change in made.changes if change.kind != "vhost"]
    with writers() as pool:
        _write_all(vhosts, target, pool)
        record(made.record_first, target)
        _write_all(others, target, pool)
        used = remove_all(made.removals, target, pool)
    if not used:  # what is still there is still ours; the next look narrows the record
        record(made.record_last, target)
    return used


@contextmanager
def writers() -> Iterator[Executor]:
    """Threads that write at one time; after an error nothing more is begun."""
    with ThreadPoolExecutor(_WRITERS, "apply") as pool:
        try:
            yield pool
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def record(owned: Owned | None, target: Target) -> None:
    """Writes down what is ours, where there is something to write."""
    if owned is not None:
        target.management.put_global_parameter(parameter_name(target.vhost), written(owned))


def remove_all(removals: Iterable[Removal], target: Target, pool: Executor) -> tuple[InUse, ...]:
    """One kind after the other, as they are ordered; the queues that stayed, as they are in use."""
    used: tuple[InUse, ...] = ()
    for kind, stage in groupby(removals, lambda removal: removal.kind):
        if kind == "queue":
            used = _remove_queues(tuple(stage), target, pool)
        else:
            each_of(stage, lambda removal: _remove(removal, target), pool)
    return used


def each_of(items: Iterable[T], act: Callable[[T], None], pool: Executor) -> None:
    """All of them, several at one time; the first error is raised."""
    for _done in pool.map(act, items):
        pass


def _write_all(changes: Iterable[Change], target: Target, pool: Executor) -> None:
    """One kind after the other, as the plan orders them; objects of a kind do not depend on one another."""
    for _, stage in groupby(changes, lambda change: change.kind):
        each_of(stage, lambda change: _write(change, target), pool)


def _write(change: Change, target: Target) -> None:
    management, vhost = target.management, target.vhost
    match change.wanted:
        case Vhost() as wanted:
            management.put_vhost(wanted.name, wanted.description)
        case User() as wanted:
            hashed = password_hash(target.passwords[wanted.name], os.urandom(SALT_BYTES))
            management.put_user(wanted.name, hashed, wanted.tags)
        case Permission() as wanted:
            rights = PermissionInfo(wanted.user, wanted.configure, wanted.write, wanted.read)
            management.put_permission(vhost, rights)
        case Policy() as wanted:
            definition = dict(wanted.definition)
            policy = PolicyInfo(wanted.name, wanted.pattern, wanted.apply_to, definition, wanted.priority)
            management.put_policy(vhost, policy)
        case Exchange() as wanted:
            if change.action == "replace":
                management.delete_exchange(vhost, wanted.name)
            management.put_exchange(vhost, wanted.name, wanted.type)
        case Queue() as wanted:
            if change.action == "replace":
                management.delete_queue(vhost, wanted.name)
            management.put_queue(vhost, wanted.name, wanted.arguments)
        case Binding() as wanted:
            binding = BindingInfo(wanted.source, wanted.destination, "queue", wanted.routing_key, wanted.arguments)
            management.add_binding(vhost, binding)


def _remove_queues(removals: Iterable[Removal], target: Target, pool: Executor) -> tuple[InUse, ...]:
    removals = tuple(removals)
    each_of((each for each in removals if each.by_name), lambda removal: _remove(removal, target), pool)
    unnamed = [each.name for each in removals if not each.by_name]
    if not unnamed:
        return ()
    if target.guard is None:
        raise ProvisionError(f'The queue "{unnamed[0]}" is not deleted, as nothing can tell whether it is in use.')
    return delete_unused(unnamed, target.vhost, target.management, target.guard, pool)


def _remove(removal: Removal, target: Target) -> None:
    management, vhost, name = target.management, target.vhost, removal.name
    match removal.kind:
        case "vhost":
            management.delete_vhost(name)
        case "user":
            management.delete_user(name)
        case "permission":
            management.delete_permission(vhost, name)
        case "policy":
            management.delete_policy(vhost, name)
        case "exchange":
            management.delete_exchange(vhost, name)
        case "queue":
            management.delete_queue(vhost, name)
        case "binding" if removal.binding is not None:
            management.delete_binding(vhost, removal.binding)
