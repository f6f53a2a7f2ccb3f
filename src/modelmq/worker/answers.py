"""Turns what a run gave, request by request, into the answer the caller gets.

After the executor, before the lane. Pure: outputs or a reason in, outcome and reply body out.
"""

from __future__ import annotations

from modelmq.errors import DeadLettered, Expired, ModelFailed, RequestError, Unavailable, request_error
from modelmq.protocol import encode_response
from modelmq.runtimes import ModelSource
from modelmq.worker.executor import Died
from modelmq.worker.item import WorkItem
from modelmq.worker.joining import Tensors, select
from modelmq.worker.outcome import Answer, Outcome, refusal
from modelmq.worker.wire import Raised


def success(item: WorkItem, outputs: Tensors, source: ModelSource, max_reply_bytes: int) -> Answer:
    """The response; a failure when the outputs cannot be a response or the response is too large."""
    try:
        wanted = select(outputs, item.outputs, source.name)
        body = encode_response(source.name, source.version, item.request_id, wanted)
    except RequestError as error:
        return refusal(error)
    if len(body) > max_reply_bytes:
        return refusal(
            ModelFailed(f"The reply of model {source.name} has {len(body)} bytes; the limit is {max_reply_bytes}.")
        )
    return Answer(Outcome.SUCCEEDED, body)


def raised(error: Raised) -> Answer:
    """The model's own words."""
    return refusal(request_error(error.code, error.message))


def dead(source: ModelSource, died: Died, attempts: int) -> Answer:
    """The request ended the model's process every time it was alone in it."""
    return refusal(
        DeadLettered(
            f"The process of model {source.name} {died.reason} each of the {attempts} times it ran this request alone; "
            "the request is kept in the dead-letter queue."
        ),
        attempts=attempts,
    )


def expired(source: ModelSource) -> Answer:
    """The deadline passed while the request waited here."""
    return refusal(Expired(f"The request's deadline passed before model {source.name} could run it."))


def unavailable(source: ModelSource, reason: str) -> Unavailable:
    """This version cannot be served here, while others of the model are."""
    return Unavailable(f"Model {source.name} version {source.version} is not available: {reason}", retry_after_s=5.0)
