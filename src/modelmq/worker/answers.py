"""Turns what a run gave, request by request, into the answer the caller gets.

After the executor, before the lane. Pure: outputs or a reason in, outcome and reply body out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from modelmq.errors import DeadLettered, Expired, ModelFailed, RequestError, Unavailable, request_error
from modelmq.protocol.json_codec import encode_response, encode_written, write_outputs
from modelmq.protocol.json_writing import WrittenRows
from modelmq.runtimes import ModelSource
from modelmq.worker.executor import Died
from modelmq.worker.item import WorkItem
from modelmq.worker.joining import Tensors, select, split
from modelmq.worker.outcome import Answer, Outcome, refusal
from modelmq.worker.wire import Raised

_LEAST_BYTES = 2
"""Of an element in JSON, as in `0,`."""
WRITTEN_AT_ONCE = 65_536
"""Elements up to which the outputs of a batch are written as a whole; of more, one request's text is held at a time."""


def successes(items: Sequence[WorkItem], outputs: Tensors, source: ModelSource, max_reply_bytes: int) -> list[Answer]:
    """The answers to the requests of one batch, in their order, out of outputs with the rows of all of them.

    Written as a whole, because that costs by the call and not by the row; one by one where it fails for whatever
    reason, so that a request is refused for its own rows only.
    """
    if sum(array.size for array in outputs.values()) <= WRITTEN_AT_ONCE:
        try:
            written = write_outputs(outputs, source.name)
        except Exception:  # noqa: S110 - the one whose rows they are is told below
            pass
        else:
            return _cut(items, written, source, max_reply_bytes)
    parts = split(outputs, [item.rows for item in items], source.name)
    return [success(item, part, source, max_reply_bytes) for item, part in zip(items, parts, strict=True)]


def success(item: WorkItem, outputs: Tensors, source: ModelSource, max_reply_bytes: int) -> Answer:
    """The response; a failure when the outputs cannot be a response or the response is too large."""
    return _answer(partial(_response, item, outputs, source, max_reply_bytes), source, max_reply_bytes)


def _cut(
    items: Sequence[WorkItem], written: dict[str, WrittenRows], source: ModelSource, max_reply_bytes: int
) -> list[Answer]:
    answers: list[Answer] = []
    start = 0
    for item in items:
        answers.append(_answer(partial(_response_of_rows, item, written, start, source), source, max_reply_bytes))
        start += item.rows
    return answers


def _response(item: WorkItem, outputs: Tensors, source: ModelSource, max_reply_bytes: int) -> bytes:
    wanted = select(outputs, item.outputs, source.name)
    least = _LEAST_BYTES * sum(array.size for array in wanted.values())
    if least > max_reply_bytes:  # written it could be many times larger, and is not taken anyway
        raise _too_large(source, f"at least {least}", max_reply_bytes)
    return encode_response(source.name, source.version, item.request_id, wanted)


def _response_of_rows(item: WorkItem, written: dict[str, WrittenRows], start: int, source: ModelSource) -> bytes:
    wanted = select(written, item.outputs, source.name).values()
    rows = [tensor.rows(start, item.rows) for tensor in wanted]
    return encode_written(source.name, source.version, item.request_id, rows)


def _answer(encode: Callable[[], bytes], source: ModelSource, max_reply_bytes: int) -> Answer:
    try:
        body = encode()
    except RequestError as error:
        return refusal(error)
    except Exception as error:  # memory, above all: what one request's outputs need must not end the worker
        return refusal(ModelFailed(f"The outputs of model {source.name} cannot be written as a reply: {error!r}."))
    if len(body) > max_reply_bytes:
        return refusal(_too_large(source, str(len(body)), max_reply_bytes))
    return Answer(Outcome.SUCCEEDED, body)


def _too_large(source: ModelSource, size: str, limit: int) -> ModelFailed:
    return ModelFailed(f"The reply of model {source.name} has {size} bytes; the limit is {limit}.")


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
