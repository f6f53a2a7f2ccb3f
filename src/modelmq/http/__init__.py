"""A small HTTP/1.1 server: bytes from a socket in, requests to one handler, its responses out.

Every service answers through it: the gateway its API, a worker its health port. Parsing is llhttp's (httptools); what
is here is limits, order, time-outs, cancellation and an end that breaks off nobody. Knows no routes and no models.
"""

from __future__ import annotations

from modelmq.http.exchange import Handler, HttpRequest, HttpResponse, Limits, json_error
from modelmq.http.server import HttpServer

__all__ = ["Handler", "HttpRequest", "HttpResponse", "HttpServer", "Limits", "json_error"]
