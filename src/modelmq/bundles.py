"""Several requests in one broker message, and several replies in one: what a broker does per message, it does once.

Only between requesters and workers that said they take it (`hello`); everybody else sends and gets single messages.
A bundle is a msgpack array of parts under a content type of its own. Each part keeps what a message of its own would
carry, so that deadline, cancel, error and dead letter stay those of one request. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

from modelmq.errors import InvalidRequest, ModelFailed

BUNDLE = "application/vnd.modelmq.bundle"
"""The content type of both kinds; what its form is never changes under this name."""
MOST_PARTS = 64
LARGEST_PART_BYTES = 16_384
"""Of a body; what is larger travels alone, because copying it costs more than a message does."""
LARGEST_BUNDLE_BYTES = 131_072
"""Of all bodies together: about one frame, so that no message of others waits long behind it."""

MOST_HEADERS = 64
"""Of one part."""
LONGEST_HEADER_NAME = 63

HeaderName = Annotated[str, Meta(max_length=LONGEST_HEADER_NAME)]
Header = str | Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Headers = Annotated[dict[HeaderName, Header], Meta(max_length=MOST_HEADERS)]
"""What AMQP can carry, as the dead letter of a part is a message of its own."""


class RequestPart(msgspec.Struct, frozen=True, array_like=True):
    """One request. The bundle's `reply_to` is that of all its parts."""

    correlation_id: str
    deadline_ms: Annotated[int, Meta(ge=0, le=2**63 - 1)]
    """Unix time in milliseconds."""
    message_id: str
    content_type: str
    headers: Headers | None
    """Beside the deadline."""
    body: bytes


class ReplyPart(msgspec.Struct, frozen=True, array_like=True):
    """One reply; `status` empty: a response, else the stable code of the error in the body."""

    correlation_id: str
    status: str
    body: bytes


encode = msgspec.msgpack.Encoder().encode
# The length is looked at before anything is made: a bundle of empty parts is ten times its size as objects.
_Requests = Annotated[tuple[RequestPart, ...], Meta(min_length=1, max_length=MOST_PARTS)]
_Replies = Annotated[tuple[ReplyPart, ...], Meta(max_length=MOST_PARTS)]
_requests: msgspec.msgpack.Decoder[tuple[RequestPart, ...]] = msgspec.msgpack.Decoder(_Requests)
_replies: msgspec.msgpack.Decoder[tuple[ReplyPart, ...]] = msgspec.msgpack.Decoder(_Replies)


def decode_requests(body: bytes) -> Sequence[RequestPart]:
    """At least one part. Raises InvalidRequest for anything else."""
    try:
        return _requests.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"The bundle of requests cannot be read: {error}.") from error


def decode_replies(body: bytes) -> Sequence[ReplyPart]:
    """Raises ModelFailed for what is no bundle of replies."""
    try:
        return _replies.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ModelFailed(f"The bundle of replies cannot be read: {error}.") from error


def may_travel_together(body: bytes, headers: dict[str, object] | None) -> bool:
    """Whether a request fits into a bundle: it is small, and its headers are plain."""
    if len(body) > LARGEST_PART_BYTES:
        return False
    return not headers or (len(headers) <= MOST_HEADERS and all(map(_is_plain, headers, headers.values())))


def _is_plain(name: str, value: object) -> bool:
    """What a worker takes in a bundle: one header that it does not would cost all siblings their answers."""
    if len(name) > LONGEST_HEADER_NAME:
        return False
    return type(value) is str or (type(value) is int and -(2**63) <= value < 2**63)


def chunks(sizes: Sequence[int], most: int = MOST_PARTS) -> list[tuple[int, int]]:
    """Where to cut a sequence of bodies of these sizes into bundles: (start, end) of each; none is empty.

    A bundle has at most `most` parts and LARGEST_BUNDLE_BYTES, or one part that is larger.
    """
    cuts: list[tuple[int, int]] = []
    start = total = 0
    for at, size in enumerate(sizes):
        if at > start and (at - start >= most or total + size > LARGEST_BUNDLE_BYTES):
            cuts.append((start, at))
            start, total = at, 0
        total += size
    if start < len(sizes):
        cuts.append((start, len(sizes)))
    return cuts
