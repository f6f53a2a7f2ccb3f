"""What stands on the broker, as frozen values: virtual host, users, permissions, exchanges, queues, bindings, policies.

`topology.build` makes one `Topology` out of the settings; provisioners, renderers, docs and tests read it. Queues
carry only arguments that can never change, everything tunable is in policies. Nothing here does I/O.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Arguments = dict[str, str | int | bool]


class Vhost(msgspec.Struct, frozen=True):
    """The virtual host that holds everything else; one per environment."""

    name: str
    description: str = ""


class User(msgspec.Struct, frozen=True):
    """A service's account. Users are shared by all virtual hosts of a broker; their secrets are not part of this."""

    name: str
    service: str
    """gateway, worker, client or operator."""
    tags: tuple[str, ...] = ()
    role: str = ""
    """Of a worker: the role it plays."""


class Permission(msgspec.Struct, frozen=True):
    """What a user may do in the virtual host: anchored regular expressions over names of queues and exchanges."""

    user: str
    configure: str
    write: str
    read: str


class Exchange(msgspec.Struct, frozen=True):
    """A durable exchange."""

    name: str
    type: Literal["direct", "fanout", "topic", "headers"]
    durable: bool = True


class Queue(msgspec.Struct, frozen=True):
    """A durable queue with its type as only argument."""

    name: str
    type: Literal["quorum", "classic"]
    durable: bool = True

    @property
    def arguments(self) -> Arguments:
        """As declared."""
        return {"x-queue-type": self.type}


class Binding(msgspec.Struct, frozen=True):
    """A way from an exchange to a queue."""

    source: str
    destination: str
    routing_key: str = ""
    arguments: Arguments = {}


class Policy(msgspec.Struct, frozen=True):
    """Settings of all queues or exchanges whose name matches; the patterns of one topology never overlap."""

    name: str
    pattern: str
    apply_to: Literal["queues", "exchanges"]
    definition: dict[str, str | int]
    priority: int = 10


class Topology(msgspec.Struct, frozen=True):
    """Everything durable that ModelMQ needs in one virtual host, each part in a stable order."""

    vhost: Vhost
    users: tuple[User, ...]
    permissions: tuple[Permission, ...]
    exchanges: tuple[Exchange, ...]
    queues: tuple[Queue, ...]
    bindings: tuple[Binding, ...]
    policies: tuple[Policy, ...]
