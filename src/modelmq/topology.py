"""Turns settings and models into the one `Topology` value, and knows every name that two parts must agree on.

A pure function of its arguments: the same models give the same names, permissions and policies whoever asks, so that
services, provisioners, docs and tests cannot disagree. Services declare nothing durable. Knows no broker.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import msgspec

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
    routing_key,
)
from modelmq.metadata import MODEL_NAME, VERSION
from modelmq.retry_ladder import QUEUES as RETRY_QUEUES
from modelmq.retry_ladder import RETRY_EXCHANGE, RUNG_HEADER, RUNGS_MS
from modelmq.retry_ladder import queue_of as retry_queue
from modelmq.settings import TopologySettings
from modelmq.topology_values import Binding, Exchange, Permission, Policy, Queue, Topology, User, Vhost

__all__ = [
    "DEFAULT_ROLE",
    "EXPIRED_QUEUE",
    "REDELIVER_EXCHANGE",
    "SERVICES",
    "SORTING_EXCHANGE",
    "UNROUTED_EXCHANGE",
    "UNROUTED_QUEUE",
    "ModelRoute",
    "Named",
    "Topology",
    "build",
    "check_vhost",
    "control_queue",
    "dead_letter_queue",
    "is_service_queue",
    "queue_name",
    "roles",
    "routing_keys",
    "user_name",
]

REDELIVER_EXCHANGE = "ml-redeliver-exchange"
"""Routes like the model exchange, for replays and retries: what has no queue any more goes to the unrouted queue."""
SORTING_EXCHANGE = "ml-dead-letter-sorting-exchange"
"""Where lane queues dead-letter to: expired requests to the expired queue, all else on to the dead-letter exchange."""
UNROUTED_EXCHANGE = "ml-unrouted-exchange"
EXPIRED_QUEUE = "ml-expired"
UNROUTED_QUEUE = "ml-unrouted"
DEFAULT_ROLE = "default"
SERVICES = ("gateway", "worker", "client", "operator")

OLDEST_BROKER = (3, 10)
_SERVICE_QUEUES = ("ml-worker.", "ml-gateway.")
_RESERVED = ("amq.", "ml-model.", "ml-dead-letter.", RETRY_QUEUES, *_SERVICE_QUEUES)
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,249}\Z")  # leaves room for ".bulk" within AMQP's 255 bytes
_LONGEST_PATTERN = 20_000  # the broker's regular expressions compile to at most 64 kB
_NOTHING = "^$"
_NODE_LOST_MS = 5_000
"""How long RabbitMQ waits for a node that is gone before it delivers again what workers hold through it. Older ones do
not wait at all; 4.3 by itself a minute, which is longer than most callers do."""


class Named(Protocol):
    """What a queue's name is made of."""

    @property
    def name(self) -> str:
        """The model's name."""
        ...

    @property
    def queue(self) -> str | None:
        """The queue its settings ask for."""
        ...


class ModelRoute(msgspec.Struct, frozen=True):
    """A model as far as routing goes. `queue` and `routing_key` are what its settings ask for beside the default."""

    name: str
    versions: tuple[str, ...] = ()
    queue: str | None = None
    routing_key: str | None = None


def queue_name(model: Named, lane: Lane) -> str:
    """`ml-model.<name>.<lane>`; with a queue of its own `<queue>` and `<queue>.bulk`."""
    if model.queue is None:
        return f"ml-model.{model.name}.{lane}"
    return model.queue if lane == "interactive" else f"{model.queue}.bulk"


def dead_letter_queue(model: str) -> str:
    """Where a model's dead letters are kept."""
    return f"ml-dead-letter.{model}"


def control_queue(role: str, worker: str) -> str:
    """The exclusive queue that a worker declares for itself and binds to the control exchange."""
    return f"ml-worker.{role}.{worker}"


def is_service_queue(name: str) -> bool:
    """Whether a worker or gateway declares this queue for itself, to end with its connection."""
    return name.startswith(_SERVICE_QUEUES)


def user_name(service: str, environment: str, role: str = DEFAULT_ROLE) -> str:
    """`ml-<service>`, of workers `ml-worker-<role>`; other environments than dev append `.<environment>`.

    Users are shared by all virtual hosts of a broker, so environments must not meet in one; roles and environments
    contain no dot, so they never do.
    """
    name = f"ml-worker-{role}" if service == "worker" else f"ml-{service}"
    return name if environment == "dev" else f"{name}.{environment}"


def routing_keys(model: ModelRoute) -> tuple[tuple[str, Lane], ...]:
    """Every key that requests for this model may carry, with the lane it leads to."""
    versions = (None, *model.versions)
    return tuple((routing_key(base, v, lane), lane) for base in _bases(model) for v in versions for lane in LANES)


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
    _check(vhost, routes)
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


def _bases(model: ModelRoute) -> tuple[str, ...]:
    alias = model.routing_key
    return (model.name,) if alias is None or alias == model.name else (model.name, alias)


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
        bindings += [
            Binding(DEAD_LETTER_EXCHANGE, dead_letter_queue(model.name), f"{base}.#") for base in _bases(model)
        ]
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


def check_vhost(name: str) -> None:
    """Raises ConfigError for a name of a virtual host that not every part can work with."""
    if not _NAME.match(name):
        raise ConfigError(f"broker.vhost: {_bad_name(name)}")


def _check(vhost: str, models: Sequence[ModelRoute]) -> None:
    check_vhost(vhost)
    claims: dict[tuple[str, str], str] = {}
    for model in models:
        _check_model(model)
        if ("model", model.name) in claims:
            raise ConfigError(f'Model "{model.name}" is listed twice; join its versions into one.')
        claims["model", model.name] = model.name
        wanted = [("routing key", base) for base in _bases(model)]
        wanted += [("queue", queue_name(model, lane)) for lane in LANES]
        for what, name in wanted:
            other = claims.setdefault((what, name), model.name)
            if other != model.name:
                both = f'Models "{other}" and "{model.name}" both claim the {what} "{name}"'
                raise ConfigError(f"{both}; change it in the model.toml of one of them.")


def _check_model(model: ModelRoute) -> None:
    for what, name in (("model name", model.name), ("routing_key", model.routing_key)):
        if name is not None and not MODEL_NAME.match(name):
            raise ConfigError(
                f'Model "{_short(model.name)}": the {what} "{_short(name)}" must be 1 to 64 letters, digits, - and _.'
            )
    for version in model.versions:
        if not VERSION.match(version):
            raise ConfigError(f'Model "{model.name}": the version "{_short(version)}" must be a whole number.')
    if model.queue is None:
        return
    if not _NAME.match(model.queue):
        raise ConfigError(f'Model "{model.name}", setting queue: {_bad_name(model.queue)}')
    # Permissions match queues and exchanges by name alone, so a queue must not bear the name of an exchange either.
    ours = {EXPIRED_QUEUE, UNROUTED_QUEUE} | {exchange.name for exchange in _exchanges()}
    if model.queue.startswith(_RESERVED) or model.queue in ours:
        raise ConfigError(f'Model "{model.name}", setting queue: "{model.queue}" is a name that ModelMQ itself uses.')


def _bad_name(name: str) -> str:
    return f'"{_short(name)}" must be 1 to 250 letters, digits, ., - and _, not beginning with . or -.'


def _short(name: str) -> str:
    shown = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in name)
    return shown if len(shown) <= 60 else shown[:59] + "…"
