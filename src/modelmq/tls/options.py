"""Which certificate files a connection is made with. Pure."""

from __future__ import annotations

import msgspec


class TlsOptions(msgspec.Struct, frozen=True):
    """PEM files. Without `ca_file` the system's authorities count; certificate and key are the client's own."""

    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
