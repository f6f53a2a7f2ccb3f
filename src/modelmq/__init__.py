"""ModelMQ serves machine-learning models as decoupled microservices over RabbitMQ."""

from __future__ import annotations
