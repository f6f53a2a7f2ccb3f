"""Asking models over RabbitMQ: the Python client, and the requester that gateways and benchmarks share with it."""

from __future__ import annotations

from modelmq.client.api import Client
from modelmq.client.request import Request
from modelmq.client.requester import Requester

__all__ = ["Client", "Request", "Requester"]
