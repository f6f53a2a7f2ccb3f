"""Open Inference Protocol V2: the bytes of requests and responses, and what they must be to fit a model.

Stands between a message's body and the tensors a runtime computes with; both directions, for both sides. Pure: values
in, values out, every mistake one typed error. Tensors are in `json_codec`, and what needs no numpy is here.
Knows nothing of HTTP, AMQP or how a model runs.
"""

from __future__ import annotations

from modelmq.protocol.bodies import encode_error, error_message, model_metadata_json, server_metadata_json
from modelmq.protocol.content_type import is_json
from modelmq.protocol.envelope import Envelope, Parameters, decode_envelope

__all__ = [
    "Envelope",
    "Parameters",
    "decode_envelope",
    "encode_error",
    "error_message",
    "is_json",
    "model_metadata_json",
    "server_metadata_json",
]
