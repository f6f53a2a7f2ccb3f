"""Turns settings and models into the one `Topology` value: what stands on the broker, and who may do what with it.

A pure function of its arguments: the same models give the same names, permissions and policies whoever asks, so that
services, provisioners, docs and tests cannot disagree. Services declare nothing durable. Knows no broker.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from modelmq.errors import ConfigError
from modelmq.generations import of_generations
from modelmq.messages import (
    CONTROL_EXCHANGE,
    DEAD_LETTER_EXCHANGE,
    GATEWAY_QUEUES,
    LANES,
    MODEL_EXCHANGE,
    REPLY_EXCHANGE,
    Lane,
)
from modelmq.retry_ladder import RETRY_EXCHANGE, RUNG_HEADER, RUNGS_MS
from modelmq.retry_ladder import queue_of as retry_queue
from modelmq.settings import TopologySettings
from modelmq.topology_names import (
    DEFAULT_ROLE,
    EXPIRED_QUEUE,
    REDELIVER_EXCHANGE,
    SORTING_EXCHANGE,
    UNROUTED_EXCHANGE,
    UNROUTED_QUEUE,
    ModelRoute,
    bases,
    check,
    dead_letter_queue,
    queue_name,
    routing_keys,
    user_name,
)
from modelmq.topology_values import Binding, Exchange, Permission, Policy, Queue, Topology, User, Vhost

OLDEST_BROKER = (3, 10)
_LONGEST_PATTERN = 20_000  # the broker's regular expressions compile to at most 64 kB
_NOTHING = "^$"
_NODE_LOST_MS = 5_000
"""How long RabbitMQ waits for a node that is gone before it delivers again what workers hold through it. Older ones do
not wait at all; 4.3 by itself a minute, which is longer than most callers do."""


def roles(settings: TopologySettings, models: Iterable[ModelRoute]) -> dict[str, tuple[ModelRoute, ...]]:
    """The models of each worker role; without any configured, the role `default` has all. Raises ConfigError."""
    by_name = {model.name: model for model in models}
    if not settings.roles:
        return {DEFAULT_ROLE: tuple(by_name.values())}
    for role, names in settings.roles.items():
        for name in names:
            if name not in by_name:
                known = ", ".join(sorted(by_name)) or "none"
                raise ConfigError(
                    f'topology.roles: role "{role}" names the unknown model "{name}"; known are: {known}.'
                )
    served = {name for names in settings.roles.values() for name in names}
    for name in by_name:
        if name not in served:
            raise ConfigError(f'Model "{name}" is in no role, so no worker would serve it; add it to topology.roles.')
    return {role: tuple(by_name[name] for name in dict.fromkeys(names)) for role, names in settings.roles.items()}


def build(
    settings: TopologySettings,
    vhost: str,
    models: Iterable[ModelRoute],
    *,
    broker_version: tuple[int, ...] = OLDEST_BROKER,
) -> Topology:
    """Everything durable for these models in this virtual host.

    `broker_version` matters three times: from 3.13 on the broker tells why a message died last, before only why it died
    first; from 4.0 on dead letters need an explicit unlimited delivery limit, which 3.10 refuses; and from 4.3 on what
    workers hold through a node that is gone comes back after a minute unless told otherwise. Raises ConfigError for
    names that no broker takes or that collide.
    """
    routes = sorted(models, key=lambda model: model.name)
    check(vhost, routes, {EXPIRED_QUEUE, UNROUTED_QUEUE, *(exchange.name for exchange in _exchanges())})
    by_role = roles(settings, routes)
    users, permissions = of_generations(*_accounts(settings, by_role), settings.generations)
    return Topology(
        vhost=Vhost(vhost, f"ModelMQ, environment {settings.environment}"),
        users=users,
        permissions=permissions,
        exchanges=_exchanges(),
        queues=_queues(settings, routes),
        bindings=_bindings(routes, "x-last-death-reason" if broker_version >= (3, 13) else "x-first-death-reason"),
        policies=_policies(settings, routes, broker_version),
    )


def _exchanges() -> tuple[Exchange, ...]:
    return (
        # The model exchange has no alternate: a request that nobody can take must come back to its publisher.
        Exchange(MODEL_EXCHANGE, "direct"),
        Exchange(CONTROL_EXCHANGE, "fanout"),
        Exchange(REPLY_EXCHANGE, "direct"),
        Exchange(REDELIVER_EXCHANGE, "direct"),
        Exchange(RETRY_EXCHANGE, "headers"),
        Exchange(SORTING_EXCHANGE, "headers"),
        Exchange(DEAD_LETTER_EXCHANGE, "topic"),
        Exchange(UNROUTED_EXCHANGE, "fanout"),
    )


def _queues(settings: TopologySettings, models: Sequence[ModelRoute]) -> tuple[Queue, ...]:
    names = [EXPIRED_QUEUE, UNROUTED_QUEUE, *map(retry_queue, RUNGS_MS)]
    for model in models:
        names += [queue_name(model, lane) for lane in LANES]
        names.append(dead_letter_queue(model.name))
    return tuple(Queue(name, settings.queue_type) for name in names)


def _bindings(models: Sequence[ModelRoute], death_reason: str) -> tuple[Binding, ...]:
    bindings = [
        Binding(UNROUTED_EXCHANGE, UNROUTED_QUEUE),
        Binding(SORTING_EXCHANGE, EXPIRED_QUEUE, arguments={"x-match": "all-with-x", death_reason: "expired"}),
    ]
    for rung_ms in RUNGS_MS:
        waits: dict[str, str | int | bool] = {"x-match": "all", RUNG_HEADER: str(rung_ms)}
        bindings.append(Binding(RETRY_EXCHANGE, retry_queue(rung_ms), arguments=waits))
    for model in models:
        for key, lane in routing_keys(model):
            bindings += [
                Binding(source, queue_name(model, lane), key) for source in (MODEL_EXCHANGE, REDELIVER_EXCHANGE)
            ]
        # Letters of versions that are gone find their way too, hence a topic over everything after the base.
        bindings += [Binding(DEAD_LETTER_EXCHANGE, dead_letter_queue(model.name), f"{base}.#") for base in bases(model)]
    return tuple(bindings)


def _policies(
    settings: TopologySettings, models: Sequence[ModelRoute], broker_version: tuple[int, ...]
) -> tuple[Policy, ...]:
    quorum = settings.queue_type == "quorum"
    lane: dict[str, str | int] = {
        "max-length": settings.max_length,
        "max-length-bytes": settings.max_length_bytes,
        "overflow": "reject-publish",
        "dead-letter-exchange": SORTING_EXCHANGE,
    }
    if quorum:  # classic queues know neither; at-least-once works with reject-publish only
        lane |= {"dead-letter-strategy": "at-least-once", "delivery-limit": settings.delivery_limit}
    if quorum and broker_version >= (4, 3):
        lane["consumer-disconnected-timeout"] = _NODE_LOST_MS
    kept: dict[str, str | int] = {
        "max-length": settings.dead_letter_max_length,
        "max-length-bytes": settings.max_length_bytes,
        "overflow": "drop-head",
    }
    if quorum and broker_version >= (4, 0):
        # Looking at a letter counts as a delivery; 3.10 has no limit unless told, and refuses -1.
        kept["delivery-limit"] = -1
    own: dict[str, str | int] = {
        "max-length": settings.own_queue_max_length,
        "max-length-bytes": settings.max_length_bytes,
        "overflow": "drop-head",
    }
    waiting = {**lane, "max-length": settings.retry_max_length, "dead-letter-exchange": REDELIVER_EXCHANGE}
    letters = kept | {"message-ttl": _ms(settings.dead_letter_ttl_s)}
    interactive, bulk = (_lane_pattern(models, each) for each in LANES)
    return (
        Policy("ml-interactive", interactive, "queues", lane | {"message-ttl": _ms(settings.message_ttl_s)}),
        Policy("ml-bulk", bulk, "queues", lane | {"message-ttl": _ms(settings.bulk_ttl_s)}),
        Policy("ml-dead-letter", r"^ml-dead-letter\.", "queues", letters),
        Policy("ml-unrouted", _exactly(UNROUTED_QUEUE), "queues", letters),
        Policy("ml-expired", _exactly(EXPIRED_QUEUE), "queues", kept | {"message-ttl": _ms(settings.expired_ttl_s)}),
        Policy("ml-own-queues", r"^(ml-worker\.|ml-gateway\.|amq\.gen-)", "queues", own),
        Policy("ml-sorting", _exactly(SORTING_EXCHANGE), "exchanges", {"alternate-exchange": DEAD_LETTER_EXCHANGE}),
        Policy(
            "ml-alternate",
            _exactly(REDELIVER_EXCHANGE, DEAD_LETTER_EXCHANGE),
            "exchanges",
            {"alternate-exchange": UNROUTED_EXCHANGE},
        ),
        *(
            Policy(retry_queue(rung_ms), _exactly(retry_queue(rung_ms)), "queues", waiting | {"message-ttl": rung_ms})
            for rung_ms in RUNGS_MS
        ),
    )


def _ms(seconds: float) -> int:
    return math.ceil(seconds * 1000)


def _lane_pattern(models: Sequence[ModelRoute], lane: Lane) -> str:
    """One pattern for all default names, so that a new model changes no policy; queues with own names one by one."""
    own = [_escaped(queue_name(model, lane)) for model in models if model.queue is not None]
    pattern = "^(" + "|".join([rf"ml-model\.[A-Za-z0-9_-]+\.{lane}", *own]) + ")$"
    if len(pattern) > _LONGEST_PATTERN:
        raise ConfigError(
            f"Too many models ({len(own)}) have a queue of their own: leave `queue` out of their model.toml."
        )
    return pattern


def _accounts(
    settings: TopologySettings, by_role: Mapping[str, Sequence[ModelRoute]]
) -> tuple[tuple[User, ...], tuple[Permission, ...]]:
    """The users and their rights. Who is answered through the reply exchange binds a queue of its own to it."""
    environment, queues = settings.environment, settings.reply_mode == "queue"
    replies, hears = (REPLY_EXCHANGE, f"{_exactly(REPLY_EXCHANGE)}|") if queues else ("amq.default", "")
    gateway, client, operator = (user_name(service, environment) for service in ("gateway", "client", "operator"))
    users = [
        User(gateway, "gateway"),
        User(client, "client"),
        User(operator, "operator", tags=("monitoring",)),
    ]
    letters = f"^({_escaped(EXPIRED_QUEUE)}|{_escaped(UNROUTED_QUEUE)})$|^ml-dead-letter\\."
    asks = (MODEL_EXCHANGE, CONTROL_EXCHANGE)
    permissions = [
        _asking(gateway, _beginning(GATEWAY_QUEUES) if queues else "", asks, hears),
        _asking(client, _beginning("amq.gen-"), asks, hears),
        Permission(operator, _NOTHING, _exactly(REDELIVER_EXCHANGE), letters),
    ]
    for role, models in by_role.items():
        user = user_name("worker", environment, role)
        own = rf"^ml-worker\.{role}\."
        lanes = [queue_name(model, lane) for model in models for lane in LANES]
        read = f"{_exactly(CONTROL_EXCHANGE, *lanes)}|{own}"
        if len(read) > _LONGEST_PATTERN:
            raise ConfigError(
                f'Role "{role}" has too many models for one user\'s permissions; split it in topology.roles.'
            )
        users.append(User(user, "worker", role=role))
        permissions.append(
            Permission(user, own, f"{_exactly(replies, DEAD_LETTER_EXCHANGE, RETRY_EXCHANGE)}|{own}", read)
        )
    return tuple(users), tuple(permissions)


def _asking(user: str, own: str, asks: Sequence[str], hears: str) -> Permission:
    """Who publishes to these exchanges, and has reply queues of its own where `own`, a pattern, is not empty."""
    if not own:
        return Permission(user, _NOTHING, _exactly(*asks), _NOTHING)
    return Permission(user, own, f"{_exactly(*asks)}|{own}", f"{hears}{own}")


def _escaped(name: str) -> str:
    """Names here hold letters, digits, `_`, `-` and `.`, of which only the last means something in a pattern."""
    return name.replace(".", r"\.")


def _beginning(prefix: str) -> str:
    return f"^{_escaped(prefix)}"


def _exactly(*names: str) -> str:
    return "^(" + "|".join(map(_escaped, names)) + ")$"
