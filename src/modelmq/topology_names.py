"""Every name that two parts must agree on, and what makes one valid: of exchanges, queues, routing keys and users.

Read by who builds the topology and by the services that meet it on the broker. Pure; knows no policies and no rights.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Protocol

import msgspec

from modelmq.errors import ConfigError
from modelmq.messages import LANES, Lane, routing_key
from modelmq.metadata import MODEL_NAME, VERSION
from modelmq.retry_ladder import QUEUES as RETRY_QUEUES

REDELIVER_EXCHANGE = "ml-redeliver-exchange"
"""Routes like the model exchange, for replays and retries: what has no queue any more goes to the unrouted queue."""
SORTING_EXCHANGE = "ml-dead-letter-sorting-exchange"
"""Where lane queues dead-letter to: expired requests to the expired queue, all else on to the dead-letter exchange."""
UNROUTED_EXCHANGE = "ml-unrouted-exchange"
EXPIRED_QUEUE = "ml-expired"
UNROUTED_QUEUE = "ml-unrouted"
DEFAULT_ROLE = "default"
SERVICES = ("gateway", "worker", "client", "operator")

_SERVICE_QUEUES = ("ml-worker.", "ml-gateway.")
_RESERVED = ("amq.", "ml-model.", "ml-dead-letter.", RETRY_QUEUES, *_SERVICE_QUEUES)
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,249}\Z")  # leaves room for ".bulk" within AMQP's 255 bytes


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
    return tuple((routing_key(base, v, lane), lane) for base in bases(model) for v in versions for lane in LANES)


def bases(model: ModelRoute) -> tuple[str, ...]:
    """How the routing keys of its requests may begin."""
    alias = model.routing_key
    return (model.name,) if alias is None or alias == model.name else (model.name, alias)


def check_vhost(name: str) -> None:
    """Raises ConfigError for a name of a virtual host that not every part can work with."""
    if not _NAME.match(name):
        raise ConfigError(f"broker.vhost: {_bad_name(name)}")


def check(vhost: str, models: Sequence[ModelRoute], taken: Collection[str]) -> None:
    """Raises ConfigError for names that no broker takes, that collide, or that are among those `taken`."""
    check_vhost(vhost)
    claims: dict[tuple[str, str], str] = {}
    for model in models:
        _check_model(model, taken)
        if ("model", model.name) in claims:
            raise ConfigError(f'Model "{model.name}" is listed twice; join its versions into one.')
        claims["model", model.name] = model.name
        wanted = [("routing key", base) for base in bases(model)]
        wanted += [("queue", queue_name(model, lane)) for lane in LANES]
        for what, name in wanted:
            other = claims.setdefault((what, name), model.name)
            if other != model.name:
                both = f'Models "{other}" and "{model.name}" both claim the {what} "{name}"'
                raise ConfigError(f"{both}; change it in the model.toml of one of them.")


def _check_model(model: ModelRoute, taken: Collection[str]) -> None:
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
    if model.queue.startswith(_RESERVED) or model.queue in taken:
        raise ConfigError(f'Model "{model.name}", setting queue: "{model.queue}" is a name that ModelMQ itself uses.')


def _bad_name(name: str) -> str:
    return f'"{_short(name)}" must be 1 to 250 letters, digits, ., - and _, not beginning with . or -.'


def _short(name: str) -> str:
    shown = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in name)
    return shown if len(shown) <= 60 else shown[:59] + "…"
