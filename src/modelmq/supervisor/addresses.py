"""Where services are reached, as a program on this machine writes it. Pure."""

from __future__ import annotations

from modelmq.settings import Settings

_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared, not listened on


def http_url(settings: Settings) -> str:
    """The gateway's, without a slash at the end."""
    host = _ANY.get(settings.gateway.host, settings.gateway.host)
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.gateway.port}"
