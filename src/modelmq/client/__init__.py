"""Asking models over RabbitMQ: the requester that gateways use, and the Python client on top of it, in `api`."""

from __future__ import annotations

from modelmq.client.request import Request
from modelmq.client.requester import Requester

__all__ = ["Request", "Requester"]
