"""The protocol's small JSON bodies: errors, and what a server and a model say of themselves.

Used by the gateway for its answers and by workers for error replies; the inference bodies are in `json_codec`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from modelmq.metadata import ModelMetadata, TensorSpec

_SHOWN_BYTES = 200
_encode = msgspec.json.Encoder().encode


class _Error(msgspec.Struct):
    error: str


_error = msgspec.json.Decoder(_Error)


def encode_error(message: str) -> bytes:
    """`{"error": message}`; text that UTF-8 cannot hold is replaced rather than refused."""
    return _encode(_Error(message.encode("utf-8", "replace").decode()))


def error_message(body: bytes) -> str:
    """The sentence in an error body; of a body in any other form, its beginning."""
    try:
        return _error.decode(body).error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        text = bytes(body[:_SHOWN_BYTES]).decode("utf-8", "replace").strip()
        return text or "The error reply has no text."


def server_metadata_json(name: str, version: str, extensions: Sequence[str] = ()) -> bytes:
    """The body of `GET /v2`."""
    return _encode({"name": name, "version": version, "extensions": list(extensions)})


def model_metadata_json(metadata: ModelMetadata, versions: Sequence[str]) -> bytes:
    """The body of `GET /v2/models/<name>`; `versions` are all that are served, oldest first."""
    signature = metadata.signature
    return _encode(
        {
            "name": metadata.name,
            "versions": list(versions),
            "platform": signature.platform,
            "inputs": [_tensor(spec) for spec in signature.inputs],
            "outputs": [_tensor(spec) for spec in signature.outputs],
        }
    )


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)}
