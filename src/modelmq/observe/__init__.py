"""What services tell about themselves, turned into logs, metrics and health pages.

Subscribes to the events that a service emits; nothing here calls back into a service, and a subscriber that breaks
never breaks one. Knows no broker, no models and no HTTP routes but its own three.
"""

from __future__ import annotations

from modelmq.observe.fan_out import fan_out
from modelmq.observe.health import Asgi, Ready, health_app
from modelmq.observe.http_server import serve_http
from modelmq.observe.logs import JsonLog, TextLog, open_log
from modelmq.observe.metrics import METRICS_CONTENT_TYPE, Metrics

__all__ = [
    "METRICS_CONTENT_TYPE",
    "Asgi",
    "JsonLog",
    "Metrics",
    "Ready",
    "TextLog",
    "fan_out",
    "health_app",
    "open_log",
    "serve_http",
]
