"""A topology of two models, one with names of its own, and a role for each."""

from __future__ import annotations

from modelmq.settings import TopologySettings
from modelmq.topology import build
from modelmq.topology_names import ModelRoute

MODELS = (
    ModelRoute("digits", ("1", "2")),
    ModelRoute("ml_service", queue="ml-service-queue", routing_key="ml_service"),
)
TOPOLOGY = build(
    TopologySettings(environment="test", roles={"a": ("digits",), "b": ("ml_service",)}), "ml-test", MODELS
)
