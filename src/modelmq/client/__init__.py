"""Asking models over RabbitMQ: the Python client, and the requester that gateways and benchmarks share with it."""

from __future__ import annotations
