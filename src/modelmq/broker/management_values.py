"""What RabbitMQ's management API tells, as frozen values that forgive what differs between versions.

The API client decodes into these; planning and status read them. Fields that a version lacks take their defaults,
fields that nobody needs are left out. Pure: knows no HTTP.
"""

from __future__ import annotations

from typing import Any

import msgspec


class Overview(msgspec.Struct, frozen=True):
    """The broker itself."""

    rabbitmq_version: str
    cluster_name: str = ""
    node: str = ""

    @property
    def version(self) -> tuple[int, ...]:
        """(3, 10, 8); what cannot be read is left out."""
        parts = self.rabbitmq_version.split("-")[0].split("+")[0].split(".")
        return tuple(int(part) for part in parts if part.isdigit())


class WhoAmI(msgspec.Struct, frozen=True):
    """The user of this client."""

    name: str


class FeatureFlag(msgspec.Struct, frozen=True):
    """`state` is enabled, disabled, or in between."""

    name: str
    state: str


class VhostInfo(msgspec.Struct, frozen=True):
    """A virtual host."""

    name: str
    description: str = ""


class UserInfo(msgspec.Struct, frozen=True):
    """An account; newer brokers keep the hash to themselves."""

    name: str
    tags: str | tuple[str, ...] = ()
    password_hash: str = ""
    hashing_algorithm: str = ""

    @property
    def tag_set(self) -> frozenset[str]:
        """The tags, whichever way this broker version writes them."""
        tags = self.tags.split(",") if isinstance(self.tags, str) else self.tags
        return frozenset(tag.strip() for tag in tags if tag.strip())

    def __repr__(self) -> str:
        return f"UserInfo({self.name!r}, tags={self.tags!r})"


class PermissionInfo(msgspec.Struct, frozen=True):
    """A user's rights in one virtual host."""

    user: str
    configure: str
    write: str
    read: str
    vhost: str = ""


class GlobalParameter(msgspec.Struct, frozen=True):
    """A named value of any form, kept by the broker for whoever knows its name."""

    name: str
    value: Any


class ExchangeInfo(msgspec.Struct, frozen=True):
    """A declared exchange."""

    name: str
    type: str
    durable: bool
    auto_delete: bool
    internal: bool = False
    arguments: dict[str, Any] = {}


class QueueInfo(msgspec.Struct, frozen=True):
    """A declared queue; its counts are up to 5 s old, and missing while it has no leader."""

    name: str
    durable: bool
    auto_delete: bool
    exclusive: bool | str = False
    type: str = "classic"
    arguments: dict[str, Any] = {}
    state: str = ""
    policy: str | None = None
    messages: int = 0
    messages_ready: int = 0
    messages_unacknowledged: int = 0
    message_bytes_ready: int = 0
    consumers: int = 0
    effective_policy_definition: Any = None

    def limit(self, key: str) -> int | None:
        """A bound that policies set on it, by its key in them."""
        definition = self.effective_policy_definition
        bound = definition.get(key) if isinstance(definition, dict) else None
        return bound if isinstance(bound, int) else None


class QueueTotals(msgspec.Struct, frozen=True):
    """A queue's depth alone, of a quorum queue as it last told; anything but a number where it has not yet."""

    name: str
    messages: Any = 0

    @property
    def depth(self) -> int:
        """Messages, ready and unacknowledged, as far as known."""
        return self.messages if isinstance(self.messages, int) else 0


class BindingInfo(msgspec.Struct, frozen=True):
    """A way from an exchange to a queue or exchange; the default exchange's own have an empty source."""

    source: str
    destination: str
    destination_type: str
    routing_key: str
    arguments: dict[str, Any] = {}
    properties_key: str = ""
    """RabbitMQ's name for key and arguments together."""


class PolicyInfo(msgspec.Struct, frozen=True):
    """A policy."""

    name: str
    pattern: str
    apply_to: str = msgspec.field(name="apply-to")
    definition: dict[str, Any]
    priority: int = 0


class ConnectionInfo(msgspec.Struct, frozen=True):
    """An open connection; fresh ones may lack most fields."""

    name: str
    user: str = ""
    vhost: str = ""
    state: str = ""
    user_provided_name: str = ""
