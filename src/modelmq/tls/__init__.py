"""TLS towards a broker, the same for AMQP and the management API: whom to trust and who we are, always verified."""

from __future__ import annotations

from modelmq.tls.context import client_context, trusting_nobody
from modelmq.tls.options import TlsOptions
from modelmq.tls.problem import problem

__all__ = ["TlsOptions", "client_context", "problem", "trusting_nobody"]
