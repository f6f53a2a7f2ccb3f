"""Open Inference Protocol V2: the bytes of requests and responses, and what they must be to fit a model.

Stands between a message's body and the tensors a runtime computes with; both directions, for both sides. Pure: values
in, values out, every mistake one typed error. Knows nothing of HTTP, AMQP or how a model runs.
"""

from __future__ import annotations

from modelmq.protocol.bodies import encode_error, error_message, model_metadata_json, server_metadata_json
from modelmq.protocol.content_type import is_json
from modelmq.protocol.datatypes import datatype_of, dtype_of
from modelmq.protocol.json_codec import (
    decode_envelope,
    decode_request,
    decode_response,
    encode_request,
    encode_response,
    encode_written,
    write_outputs,
)
from modelmq.protocol.tensors import Envelope, InferenceRequest, InferenceResponse, Parameters
from modelmq.protocol.validation import rows_of

__all__ = [
    "Envelope",
    "InferenceRequest",
    "InferenceResponse",
    "Parameters",
    "datatype_of",
    "decode_envelope",
    "decode_request",
    "decode_response",
    "dtype_of",
    "encode_error",
    "encode_request",
    "encode_response",
    "encode_written",
    "error_message",
    "is_json",
    "model_metadata_json",
    "rows_of",
    "server_metadata_json",
    "write_outputs",
]
