from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelmq import bundles
from modelmq.bundles import LARGEST_BUNDLE_BYTES, LARGEST_PART_BYTES, MOST_HEADERS, MOST_PARTS, ReplyPart, RequestPart
from modelmq.errors import InvalidRequest, ModelFailed

HEADERS = st.none() | st.dictionaries(st.text(max_size=63), st.text() | st.integers(-(2**63), 2**63 - 1), max_size=4)
REQUESTS = st.builds(
    RequestPart,
    correlation_id=st.text(max_size=64),
    deadline_ms=st.integers(0, 2**63 - 1),
    message_id=st.text(max_size=64),
    content_type=st.text(max_size=64),
    headers=HEADERS,
    body=st.binary(max_size=200),
)
REPLIES = st.builds(ReplyPart, correlation_id=st.text(), status=st.text(), body=st.binary())


@given(st.lists(REQUESTS, min_size=1, max_size=MOST_PARTS))
def test_requests_come_out_as_they_went_in(parts: list[RequestPart]) -> None:
    assert list(bundles.decode_requests(bundles.encode(parts))) == parts


@given(st.lists(REPLIES, max_size=MOST_PARTS))
def test_replies_come_out_as_they_went_in(parts: list[ReplyPart]) -> None:
    assert list(bundles.decode_replies(bundles.encode(parts))) == parts


@given(st.binary(max_size=300))
def test_garbage_is_one_typed_error(body: bytes) -> None:
    for decode, error in ((bundles.decode_requests, InvalidRequest), (bundles.decode_replies, ModelFailed)):
        try:
            decode(body)
        except error:
            continue


@pytest.mark.parametrize(
    "body",
    [
        b"",
        msgspec.msgpack.encode([]),
        msgspec.msgpack.encode([["a", -1, "a", "t", None, b""]]),
        msgspec.msgpack.encode([["a", 1, "a", "t", {"n" * 64: 1}, b""]]),
        msgspec.msgpack.encode([["a", 1, "a", "t", {"n": 2**63}, b""]]),
        msgspec.msgpack.encode([["a", 1, "a", "t", {str(n): 1 for n in range(MOST_HEADERS + 1)}, b""]]),
        msgspec.msgpack.encode([["a", 1, "a", "t", {"n": {}}, b""]]),
        msgspec.msgpack.encode([["a", 1, "a", "t", None, b""]] * (MOST_PARTS + 1)),
        b"\x91" * 5000,
    ],
)
def test_what_no_message_could_carry_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest, match="bundle"):
        bundles.decode_requests(body)


@given(st.lists(st.integers(0, 2 * LARGEST_BUNDLE_BYTES), max_size=200), st.integers(1, MOST_PARTS))
def test_chunks_cover_all_in_order_and_keep_the_limits(sizes: list[int], most: int) -> None:
    cuts = bundles.chunks(sizes, most)
    assert [at for start, end in cuts for at in range(start, end)] == list(range(len(sizes)))
    for start, end in cuts:
        assert 1 <= end - start <= most
        assert end - start == 1 or sum(sizes[start:end]) <= LARGEST_BUNDLE_BYTES


def test_only_small_requests_with_plain_headers_travel_together() -> None:
    assert bundles.may_travel_together(b"", None)
    assert bundles.may_travel_together(bytes(LARGEST_PART_BYTES), {"traceparent": "00", "number": 1})
    assert not bundles.may_travel_together(bytes(LARGEST_PART_BYTES + 1), None)
    assert bundles.may_travel_together(b"", {"n" * 63: 2**63 - 1})
    assert not bundles.may_travel_together(b"", {"n" * 64: 1})
    assert not bundles.may_travel_together(b"", {str(n): 1 for n in range(MOST_HEADERS + 1)})
    for value in (2**63, -(2**63) - 1, True, 1.5, None, b"", {}, []):
        assert not bundles.may_travel_together(b"", {"header": value})
