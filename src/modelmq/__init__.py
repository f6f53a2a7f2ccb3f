"""ModelMQ serves machine-learning models as decoupled microservices over RabbitMQ."""

from __future__ import annotations

from typing import TYPE_CHECKING

from modelmq.errors import Retry

if TYPE_CHECKING:
    from modelmq.client.api import Client

__all__ = ["Client", "Retry"]


def __getattr__(name: str) -> object:
    """The client is loaded when it is first asked for: services and the command line do without numpy's start."""
    if name == "Client":
        from modelmq.client.api import Client  # noqa: PLC0415

        return Client
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
