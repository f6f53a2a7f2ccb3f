"""Which content types carry a request that this service reads.

The gateway asks before it accepts a body, the worker before it decodes one, so both refuse the same things.
"""

from __future__ import annotations

from collections.abc import Mapping

from modelmq.errors import Unsupported

_JSON = "application/json"
_BINARY = "application/octet-stream"
_BINARY_HEADER = "inference-header-content-length"
_CHARSETS = ("utf-8", "utf8", "us-ascii")


def is_json(content_type: str | None) -> bool:
    """Whether the content type is JSON in UTF-8; absent or empty counts as JSON, as the message contract says."""
    if not content_type or content_type == _JSON:
        return True
    media_type, *parameters = content_type.lower().split(";")
    if media_type.strip() != _JSON:
        return False
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        if key.strip() == "charset" and value.strip().strip('"') not in _CHARSETS:
            return False
    return True


def require_json(content_type: str | None, headers: Mapping[str, object] | None = None) -> None:
    """Raises Unsupported, saying what to send instead, for anything but a JSON request."""
    if headers and any(isinstance(name, str) and name.lower() == _BINARY_HEADER for name in headers):
        raise Unsupported(
            "The request has binary tensors (header Inference-Header-Content-Length), which are not supported yet; "
            f"send the tensors in JSON with content type {_JSON}."
        )
    if is_json(content_type):
        return
    shown = str(content_type)[:80]
    if shown.partition(";")[0].strip().lower() == _BINARY:
        raise Unsupported(f"Binary tensors ({_BINARY}) are not supported yet; send JSON with content type {_JSON}.")
    raise Unsupported(f'Content type "{shown}" is not supported; send JSON in UTF-8 with content type {_JSON}.')
